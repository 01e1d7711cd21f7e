"""The results page (being rebuilt)."""


def write_page(views, path):
    raise NotImplementedError
