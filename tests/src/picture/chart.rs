//! Charts one below the other, as SVG.

use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
/// Of one chart, its title above.
const PLOT: f64 = 120.0;
const TITLE: f64 = 26.0;
const GAP: f64 = 22.0;
const BOTTOM: f64 = 34.0;
/// Seconds between marks of the time axis.
const TICK: u64 = 10;

/// Lines over time that have one scale.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
}

/// One of them: seconds and values.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// The whole picture, over so much time.
pub(super) fn picture(title: &str, time: Duration, charts: &[Chart]) -> String {
    let height = TOP + charts.len() as f64 * (TITLE + PLOT + GAP) - GAP + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" fill=\"#374151\">\n<rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"600\">{}</text>\n",
        escape(title)
    );
    let mut y = TOP;
    for chart in charts {
        draw(&mut svg, chart, y + TITLE, time.as_secs_f64());
        y += TITLE + PLOT + GAP;
    }
    let base = y - GAP;
    for second in (0..=time.as_secs()).step_by(TICK as usize) {
        let x = x_of(second as f64, time.as_secs_f64());
        write(
            &mut svg,
            format_args!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>\n", base + 18.0),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, chart: &Chart, top: f64, time: f64) {
    let highest = chart.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let scale = round_up(highest);
    let y_of = |value: f64| top + PLOT * (1.0 - value.clamp(0.0, scale) / scale);
    write(
        svg,
        format_args!("<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"600\">{}</text>\n", top - 9.0, escape(&chart.title)),
    );
    for part in 0..=2 {
        let value = scale * f64::from(part) / 2.0;
        let y = y_of(value);
        let right = WIDTH - RIGHT;
        write(svg, format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e5e7eb\"/>\n"));
        let x = LEFT - 8.0;
        write(svg, format_args!("<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n", y + 4.0, short(value)));
    }
    let mut legend = WIDTH - RIGHT;
    for line in chart.lines.iter().rev() {
        let (color, bottom) = (line.color, top + PLOT);
        let mut path = String::new();
        for (index, (second, value)) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write(&mut path, format_args!("{command}{:.1} {:.1}", x_of(*second, time), y_of(*value)));
        }
        if let (Some((first, _)), Some((last, _))) = (line.points.first(), line.points.last()) {
            let (first, last) = (x_of(*first, time), x_of(*last, time));
            write(
                svg,
                format_args!(
                    "<path d=\"{path}L{last:.1} {bottom:.1}L{first:.1} {bottom:.1}Z\" fill=\"{color}\" fill-opacity=\"0.08\"/>\n"
                ),
            );
        }
        write(svg, format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"/>\n"));
        let y = top - 9.0;
        write(
            svg,
            format_args!(
                "<text x=\"{legend:.1}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"{color}\">{}</text>\n",
                escape(&line.name)
            ),
        );
        // About what a character of 12 px takes, and some space.
        legend -= line.name.chars().count() as f64 * 6.2 + 16.0;
    }
}

fn x_of(second: f64, time: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (second / time).clamp(0.0, 1.0)
}

/// The next number that is not below and whose half is short as well.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= value).unwrap_or(decade * 10.0)
}

/// With k, M or G.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e9.. => (value / 1e9, " G"),
        1e6.. => (value / 1e6, " M"),
        1e3.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{unit}", (value * 100.0).round() / 100.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_short() {
        for (value, scale) in
            [(0.0, 1.0), (0.37, 0.4), (1.0, 1.0), (7.2e8, 8e8), (1.2e9, 1.5e9), (16_384.0, 20_000.0), (9.5, 10.0)]
        {
            assert!((round_up(value) / scale - 1.0_f64).abs() < 1e-9, "{value}: {}", round_up(value));
        }
        assert_eq!([0.0, 0.5, 1500.0, 2e6, 2.5e9].map(short), ["0", "0.5", "1.5 k", "2 M", "2.5 G"]);
    }

    #[test]
    fn a_picture_has_its_lines_and_escapes_names() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            color: "#000000",
            points: vec![(0.0, 0.0), (45.0, 1.0), (90.0, 0.5)],
        };
        let chart = Chart { title: "a < b".to_owned(), lines: vec![line("x"), line("y & z")] };
        let svg = picture("A picture", Duration::from_secs(90), &[chart]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains("y &amp; z"), "{svg}");
        // From the lower left to half of the width at the top, and half way down again.
        assert_eq!(svg.matches("d=\"M62.0 190.0L453.0 70.0L844.0 130.0\"").count(), 2, "{svg}");
        assert!(svg.contains(">90 s</text>"));
    }
}
