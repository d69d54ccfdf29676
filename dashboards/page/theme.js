// Before anything is drawn, so that the page does not flash in the other colours. Classic script: it must not be deferred.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("tailsight-theme");
  } catch {
    // Storage may be forbidden; the system's choice holds.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
