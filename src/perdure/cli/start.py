"""What is set once the heavy libraries are in."""


def quieten() -> None:
    """Keep the libraries' own bars and notices off the screen."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
