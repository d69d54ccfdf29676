"""Packets as they pass: kernel rings read in whole blocks, counted by flow, stamped by key, kept around a trigger."""
