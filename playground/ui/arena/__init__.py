"""The views of the Chat tab, a file each; `playground.ui.arena_tab` puts them together."""
