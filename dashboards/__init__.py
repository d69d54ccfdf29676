"""What people look at, as code: terminal views now; Grafana dashboards, the web page and reports later."""
