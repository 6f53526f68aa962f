"""A web page for `thinkedit edit`: upload a picture, say what to change, watch, stop, download."""
