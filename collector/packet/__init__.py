"""Packets: capture files read in whole blocks, headers parsed with numpy, TCP analysed without a loop per packet."""
