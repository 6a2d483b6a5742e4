"""The library of scenarios, as package data."""
