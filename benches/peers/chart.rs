//! Bars as an SVG, by hand: the same figures give the same bytes. Readable on light ground and on dark.

use std::fmt::Write;

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// Drawn in the colour of its own.
    pub(crate) ours: bool,
}

/// `bars` from top to bottom, the longest of them filling the width; each says its value.
pub(crate) fn svg(title: &str, note: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP + ROW * bars.len() + BOTTOM;
    let mut text = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">
<style>
  text {{ font: 13px system-ui, sans-serif; fill: #24292f }}
  .title {{ font-size: 15px; font-weight: 600 }}
  .note {{ font-size: 11px; fill: #57606a }}
  .ours {{ font-weight: 600 }}
  rect {{ fill: #afb8c1 }}
  rect.ours {{ fill: #0969da }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3 }}
    .note {{ fill: #8b949e }}
    rect {{ fill: #484f58 }}
    rect.ours {{ fill: #58a6ff }}
  }}
</style>
<text class="title" x="{EDGE}" y="24">{title}</text>
"#,
        title = escape(title),
    );
    for (n, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * n;
        let length = (bar.value / longest * (WIDTH - LABELS - VALUES) as f64).max(1.0);
        let class = if bar.ours { r#" class="ours""# } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            r#"<text{class} x="{EDGE}" y="{base}">{label}</text><rect{class} x="{LABELS}" y="{y}" width="{length:.1}" height="{BAR}" rx="2"/><text{class} x="{end:.1}" y="{base}">{value:.1}</text>"#,
            base = y + BAR - 5,
            label = escape(&bar.label),
            end = LABELS as f64 + length + 6.0,
            value = bar.value,
        );
    }
    let _ = writeln!(text, r#"<text class="note" x="{EDGE}" y="{}">{}</text>"#, height - 12, escape(note));
    text.push_str("</svg>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: usize = 760;
const EDGE: usize = 12;
const LABELS: usize = 260;
const VALUES: usize = 60;
const TOP: usize = 40;
const ROW: usize = 26;
const BAR: usize = 18;
const BOTTOM: usize = 32;
