"""A wire behind HTTP: texts in, packets out; packets in OpenAI-shaped requests, answers out; a page to try it."""
