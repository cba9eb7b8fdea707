"""Tests of one running server, which the modules of this folder share."""
