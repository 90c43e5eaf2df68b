"""The sagas as tables of rows."""
