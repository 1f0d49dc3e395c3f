"""What is set once the heavy libraries are in."""


def quieten() -> None:
    """Keep the libraries' own bars and notices off the screen."""
    import warnings

    import transformers

    # peft asks transformers for names that transformers is about to drop; nobody at a terminal can do anything.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
