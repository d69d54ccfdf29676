"""Objectives, error budgets and burn alerts: read from OpenSLO documents, counted exactly, evaluated on counts."""
