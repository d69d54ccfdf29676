"""The executive report as a page: one view of its parts, drawn as HTML and as PDF."""
