"""Why a model's text can't be encoded without torch."""


class NeedsTorch(Exception):
    """Why torch has to do it. Never reaches a user: torch does it then."""
