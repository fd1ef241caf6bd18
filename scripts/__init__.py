"""Programs that build, serve and try the site; run each with `python -m scripts.<name>` from the checkout."""
