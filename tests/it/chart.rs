//! The chart that README shows, as `cargo bench --bench peers` draws it.

#[path = "../../benches/peers/chart.rs"]
mod drawing;

use drawing::{Bar, svg};

fn bars() -> Vec<Bar> {
    let bar = |label: &str, value, ours| Bar { label: label.into(), value, ours };
    vec![bar("a <proxy> & \"more\"", 40.0, false), bar("Tollgate", 20.0, true), bar("idle", 0.0, false)]
}

#[test]
fn the_same_figures_give_the_same_bytes() {
    assert_eq!(svg("title", "note", &bars()), svg("title", "note", &bars()));
}

#[test]
fn bars_are_as_long_as_their_values_and_ours_stands_out() {
    let drawn = svg("title", "note", &bars());
    let rects: Vec<&str> = drawn.split("<rect").skip(1).filter_map(|rest| rest.split_once("/>")).map(|r| r.0).collect();
    let width =
        |rect: &str| -> f64 { rect.split_once("width=\"").unwrap().1.split_once('"').unwrap().0.parse().unwrap() };
    let widths: Vec<f64> = rects.iter().map(|rect| width(rect)).collect();
    assert_eq!(widths, [widths[0], widths[0] / 2.0, 1.0]);
    let ours: Vec<bool> = rects.iter().map(|rect| rect.contains("class=\"ours\"")).collect();
    assert_eq!(ours, [false, true, false]);
}

#[test]
fn labels_are_text_and_no_markup() {
    let drawn = svg("title", "a < b", &bars());
    assert!(drawn.contains("a &lt;proxy&gt; &amp; &quot;more&quot;") && drawn.contains("a &lt; b"), "{drawn}");
}

#[test]
fn readme_shows_the_one_in_the_tree() {
    let root = env!("CARGO_MANIFEST_DIR");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).unwrap();
    assert!(readme.contains("](benches/peers/chart.svg)"));
    let chart = std::fs::read_to_string(format!("{root}/benches/peers/chart.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n") && chart.contains("class=\"ours\""), "{chart}");
}
