"""Reports that the server makes by the clock or when asked, keeps in DIR/reports, and shows."""
