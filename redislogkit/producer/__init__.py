"""The application's side: handler and formatter. Never imports redis."""
