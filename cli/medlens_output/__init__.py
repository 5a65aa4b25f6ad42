"""How answers and progress are shown."""
