"""One file per framework, each a translator from its hooks to `boxscore.Run`."""
