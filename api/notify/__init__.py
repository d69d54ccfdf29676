"""Delivery of alerts: what the outbox holds goes to Alertmanager and to signed webhooks, at least once."""
