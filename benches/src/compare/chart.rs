//! The pictures of the comparison as SVG: bars with their spread, and percentiles of delays. Pure.

use std::fmt::Write;

use super::figures::Spread;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 730.0;
const TOP: f64 = 50.0;
/// Height of one workload.
const ROW: f64 = 46.0;
const ROUTER: &str = "#2f6f9f";
const BARE: &str = "#b0722a";
const TEXT: &str = "#222";
const LINE: &str = "#ddd";

/// One workload's ratio of processor time.
pub(super) struct Ratio {
    pub(super) name: &'static str,
    pub(super) ratio: Spread,
    pub(super) target: Option<f64>,
}

/// One workload's delays in milliseconds: the router's and the bare broadcaster's.
pub(super) struct Delay {
    pub(super) name: &'static str,
    pub(super) p50: [f64; 2],
    pub(super) p99: [f64; 2],
    pub(super) p999: [f64; 2],
}

/// A picture that grows.
struct Svg(String);

impl Svg {
    fn new(height: f64, title: &str) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        ));
        svg.text((LEFT, 24.0), "start", title);
        svg
    }

    // Writing to a string cannot fail.
    fn text(&mut self, at: (f64, f64), anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{TEXT}\">{text}</text>",
            at.0, at.1
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn bar(&mut self, from: f64, to: f64, y: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.0,
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
            (to - from).max(0.5)
        );
    }

    fn dot(&mut self, x: f64, y: f64, colour: &str) {
        let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Bars from zero; the spread as a line across their ends, the target as a black stroke.
pub(super) fn ratios(rows: &[Ratio]) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let mut svg = Svg::new(bottom + 50.0, "Router's processor time per delivered copy, bare broadcaster = 1");
    let largest = rows.iter().map(|row| row.ratio.most.max(row.target.unwrap_or(0.0))).fold(1.0, f64::max);
    let steps = (largest * 4.0 + 0.5).ceil().min(40.0);
    let at = |ratio: f64| LEFT + (RIGHT - LEFT) * (ratio / (steps / 4.0)).clamp(0.0, 1.0);
    let every = (steps / 12.0).ceil();
    for step in 0..=steps as u32 {
        if f64::from(step) % every == 0.0 {
            let x = at(f64::from(step) / 4.0);
            svg.line((x, TOP), (x, bottom), if step == 4 { "#888" } else { LINE }, 1.0);
            svg.text((x, bottom + 18.0), "middle", &format!("{:.2}", f64::from(step) / 4.0));
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + ROW * index as f64 + 8.0;
        let middle = y + 15.0;
        svg.text((LEFT - 8.0, middle + 5.0), "end", row.name);
        svg.bar(LEFT, at(row.ratio.median), y, 30.0, ROUTER);
        svg.line((at(row.ratio.least), middle), (at(row.ratio.most), middle), TEXT, 2.0);
        for end in [row.ratio.least, row.ratio.most] {
            svg.line((at(end), middle - 5.0), (at(end), middle + 5.0), TEXT, 2.0);
        }
        if let Some(target) = row.target {
            svg.line((at(target), y - 4.0), (at(target), y + 34.0), "#000", 3.0);
        }
        svg.text(
            (at(row.ratio.most.max(row.target.unwrap_or(0.0))) + 8.0, middle + 5.0),
            "start",
            &format!("{:.2}", row.ratio.median),
        );
    }
    svg.text(
        (LEFT, bottom + 38.0),
        "start",
        "bars: medians; thin: least to most; black strokes: the most that is aimed at",
    );
    svg.end()
}

/// From the median to the 99.9th percentile as a line with dots, on a logarithmic scale.
pub(super) fn delays(rows: &[Delay]) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let mut svg = Svg::new(bottom + 50.0, "Delay of a copy at half load, milliseconds (p50, p99, p99.9)");
    let all = || rows.iter().flat_map(|row| [row.p50, row.p99, row.p999]).flatten().filter(|delay| *delay > 0.0);
    let least = all().fold(1.0, f64::min).log10().floor();
    let most = all().fold(10.0, f64::max).log10().ceil();
    let at = |delay: f64| {
        let place = (delay.max(1e-9).log10() - least) / (most - least);
        LEFT + (RIGHT - LEFT) * place.clamp(0.0, 1.0)
    };
    for power in least as i32..=most as i32 {
        let value = 10_f64.powi(power);
        let x = at(value);
        svg.line((x, TOP), (x, bottom), LINE, 1.0);
        svg.text((x, bottom + 18.0), "middle", &format!("{value}"));
    }
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + ROW * index as f64 + ROW / 2.0;
        svg.text((LEFT - 8.0, y + 5.0), "end", row.name);
        for (side, colour, y) in [(0, ROUTER, y - 8.0), (1, BARE, y + 8.0)] {
            svg.line((at(row.p50[side]), y), (at(row.p999[side]), y), colour, 2.0);
            for delay in [row.p50[side], row.p99[side], row.p999[side]] {
                svg.dot(at(delay), y, colour);
            }
        }
    }
    svg.bar(LEFT, LEFT + 14.0, bottom + 28.0, 12.0, ROUTER);
    svg.text((LEFT + 20.0, bottom + 39.0), "start", "router");
    svg.bar(LEFT + 80.0, LEFT + 94.0, bottom + 28.0, 12.0, BARE);
    svg.text((LEFT + 100.0, bottom + 39.0), "start", "bare broadcaster; medians of the rounds");
    svg.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn every_workload_has_its_bar_its_target_and_its_figure() {
        let spread = |median| Spread { median, least: median * 0.9, most: median * 1.1 };
        let rows = [
            Ratio { name: "W1", ratio: spread(0.45), target: Some(0.5) },
            Ratio { name: "W1-TLS", ratio: spread(0.8), target: None },
        ];
        let svg = ratios(&rows);
        assert_eq!(counted(&svg, ROUTER), 2);
        assert_eq!(counted(&svg, "stroke-width=\"3\""), 1);
        assert!(svg.contains(">0.45<") && svg.contains(">W1-TLS<") && svg.ends_with("</svg>\n"));
        // The target stands where its value is on the scale from 0 to 1.5: between those of 0.25 and 0.75.
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn delays_are_drawn_for_both_from_the_median_on() {
        let rows = [Delay { name: "W2", p50: [0.8, 1.0], p99: [6.0, 9.0], p999: [12.0, 0.0] }];
        let svg = delays(&rows);
        assert_eq!(counted(&svg, "<circle"), 6);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(!delays(&[]).contains("NaN") && !ratios(&[]).contains("NaN"));
    }
}
