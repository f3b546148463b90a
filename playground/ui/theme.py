"""How the app looks: one theme, light and dark, system fonts, and text that scales to the back row."""

import gradio as gr
from gradio.themes.utils import colors, sizes

SCALES = (100, 125, 150, 175)  # per cent


def _scaled(*pixels: int) -> list[str]:
    return [f"calc({size}px * var(--font-scale, 1))" for size in pixels]


THEME = gr.themes.Base(
    primary_hue=colors.teal,
    secondary_hue=colors.teal,
    neutral_hue=colors.slate,
    text_size=sizes.Size(*_scaled(11, 12, 13, 15, 17, 20, 24), name="text_scaled"),
    spacing_size=sizes.spacing_md,
    radius_size=sizes.radius_md,
    # system fonts only: nothing to fetch, and readable everywhere
    font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"),
    font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"),
).set(
    body_background_fill="#f6f7f8",
    body_background_fill_dark="#11161b",
    body_text_color="#16202a",
    body_text_color_dark="#e8edf2",
    body_text_color_subdued="#4a5865",
    body_text_color_subdued_dark="#a9b7c4",
    block_background_fill="#ffffff",
    block_background_fill_dark="#182028",
    block_border_color="#d5dbe1",
    block_border_color_dark="#2e3a45",
    block_shadow="none",
    block_padding="8px 12px",
    layout_gap="10px",
    form_gap_width="0px",
    block_label_text_color="*body_text_color_subdued",
    block_label_text_color_dark="*body_text_color_subdued",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    block_title_text_weight="600",
    background_fill_secondary_dark="#1d2630",
    border_color_primary="#d5dbe1",
    border_color_primary_dark="#2e3a45",
    input_background_fill="#ffffff",
    input_background_fill_dark="#11161b",
    input_border_color="#b8c2cc",
    input_border_color_dark="#445362",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#ffffff",
    button_secondary_background_fill="#e8ecf0",
    button_secondary_background_fill_hover="#d9dfe5",
    button_secondary_background_fill_dark="#2a3642",
    button_secondary_background_fill_hover_dark="#364554",
    button_secondary_text_color="*body_text_color",
    button_secondary_text_color_dark="*body_text_color",
    link_text_color="*primary_700",
    link_text_color_dark="*primary_300",
    color_accent="*primary_700",
)

CSS = """
html { font-size: calc(16px * var(--font-scale, 1)); }
.gradio-container { max-width: 1680px !important; margin: 0 auto; }
#header { align-items: center; gap: 4px 20px; }
#header > :first-child { flex: 1 1 500px !important; width: auto !important; }
#model-state { flex: 0 0 auto !important; width: auto !important; }
button.label-wrap { width: 100%; text-align: left; gap: 8px; }
button.label-wrap > span:first-child { flex: 1 1 auto; min-width: 0; overflow-wrap: anywhere; }
button.label-wrap > .icon { flex: none; align-self: center; }
.placeholder-content { padding: 0 16px !important; text-align: center; }
/* gradio gives a checkbox no width of its own: on a phone, two stood side by side in a few letters each */
.form > .block:has(> .checkbox-container) { min-width: min(260px, 100%) !important; }
.masthead { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 20px; }
.masthead h1 { font-size: var(--text-xl); font-weight: 700; margin: 0; line-height: 1.25; }
.masthead p { margin: 0; color: var(--body-text-color-subdued); font-size: var(--text-sm); flex: 1 1 16em; }
.masthead .controls { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.masthead .controls span { font-size: var(--text-sm); color: var(--body-text-color-subdued); margin-right: 2px; }
.masthead .controls button {
  font-size: var(--text-sm); padding: 3px 8px; border-radius: var(--radius-md); cursor: pointer; line-height: 1.4;
  margin: 0;
  border: 1px solid var(--input-border-color); background: var(--block-background-fill); color: var(--body-text-color);
}
.masthead .controls button[aria-pressed="true"] {
  background: var(--primary-700); border-color: var(--primary-700); color: #fff;
}
.masthead .controls button:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 1px; }
.model-state {
  font-size: var(--text-sm); color: var(--body-text-color-subdued); display: flex; align-items: center; gap: 7px;
}
.model-state i { width: 10px; height: 10px; border-radius: 50%; background: #9aa5b1; flex: none; }
.model-state.ready i { background: #0f9d6b; }
.model-state.loading i { background: #d18b00; }
.model-state.failed i { background: #c8322b; }
#banner { border: 1px solid var(--primary-600); border-radius: var(--radius-lg); padding: 12px 16px; }
.notice p { margin: 0 0 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
.notice .bar {
  height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; margin: 6px 0;
}
.notice .bar b { display: block; height: 100%; background: var(--primary-600); }
.notice.failed p { color: #a32019; }
.dark .notice.failed p { color: #ff9c94; }
#banner button { flex: none; width: auto; }
.dark .tab-container button.selected { color: var(--primary-300); }
footer { font-size: var(--text-xs); }
/* a drawn chart keeps the page as wide as it was drawn, however narrow the window is made */
.vega-embed { contain: inline-size; }
@media (max-width: 640px) {
  .masthead p, .masthead .controls span { display: none; }
  .masthead .controls button { padding: 3px 6px; }
  .tab-container button { padding: 0 8px; font-size: min(var(--text-md), 4.2vw); }
}
"""

# Runs in the browser before the page is drawn: text size and light/dark are the browser's own settings, kept there.
HEAD = """
<style>
/* not in CSS: gradio puts all of that inside the page's own block, and this is what stands around it */
@media (max-width: 640px) { .gradio-container .main.app { padding: 8px 10px !important; } }
</style>
<script>
(() => {
  const root = document.documentElement;
  const read = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const write = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private window */ } };
  const preferred = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const dark = () => (read("playground-theme") ?? preferred()) === "dark";
  window.playgroundLook = () => {
    const scale = read("playground-scale") ?? "100";
    root.style.setProperty("--font-scale", scale / 100);
    document.body?.classList.toggle("dark", dark());
    document.querySelectorAll("[data-scale]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.scale === scale));
    document.querySelectorAll("[data-theme-toggle]").forEach((b) => { b.textContent = dark() ? "Light" : "Dark"; });
  };
  document.addEventListener("click", (event) => {
    const scale = event.target.closest("[data-scale]");
    if (scale) write("playground-scale", scale.dataset.scale);
    if (event.target.closest("[data-theme-toggle]")) write("playground-theme", dark() ? "light" : "dark");
    window.playgroundLook();
  });
  // gradio's dropdown (6.31) takes the Tab that leaves it for typing, and stays open over what comes next
  window.addEventListener("keydown", (event) => {
    const leaving = event.key === "Tab" || event.key === "Shift";
    if (leaving && event.target.getAttribute?.("role") === "combobox") event.stopPropagation();
  }, true);
  window.playgroundLook();
})();
</script>
"""
JS = "() => window.playgroundLook()"

_SCALE_BUTTONS = "".join(
    f'<button type="button" data-scale="{scale}" aria-label="Text size {scale} per cent">{scale}%</button>'
    for scale in SCALES
)
MASTHEAD = f"""<div class="masthead">
<h1>Instruction-Tuning Playground</h1>
<p>Same weights, other behaviour: because of a template, a loss mask, a small adapter.</p>
<div class="controls" role="group" aria-label="Display"><span>Text</span>{_SCALE_BUTTONS}
<button type="button" data-theme-toggle aria-label="Light or dark">Dark</button></div>
</div>"""
