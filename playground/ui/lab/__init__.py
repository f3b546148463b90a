"""The views of the Templates tab, a file each; `playground.ui.preview_tab` puts them together."""
