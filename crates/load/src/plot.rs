//! A run drawn as SVG: the delays' distribution, and the processor's use over time. Pure.

use std::fmt::Write;

use crate::histogram::Histogram;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Graphs {
    /// What was run, in one line.
    pub summary: String,
    /// Of the measured window's copies, in microseconds.
    pub delays: Histogram,
    /// Over the measured window.
    pub samples: Vec<Sample>,
}

/// The processor's use over a part of the window, in cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The part's end, since the window began.
    pub second: f64,
    /// This tool's.
    pub generator: f64,
    /// The routers', where they were looked at.
    pub routers: Option<f64>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 700.0;
/// Characters of the summary in one line, at the title's size.
const LINE: usize = 110;
/// Bars per factor of two of the delay: narrow enough to see a shape, wide enough to see a bar.
const BARS: f64 = 4.0;
/// What is faster than this, in microseconds, stands in the first bar: less than the clocks of a busy machine can tell.
const FASTEST: f64 = 50.0;
const DELAY: &str = "#3b6ea8";
const ROUTER: &str = "#c0504d";
const GENERATOR: &str = "#7f7f7f";

/// A graph's place, and the values at its edges.
struct Frame {
    top: f64,
    bottom: f64,
    /// Values at the left and right edge, and at the upper one; the lower one is 0.
    x: (f64, f64),
    y: f64,
}

const LEFT: f64 = 80.0;
const RIGHT: f64 = WIDTH - 30.0;

impl Frame {
    fn at_x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    fn at_y(&self, value: f64) -> f64 {
        self.bottom - value / self.y * (self.bottom - self.top)
    }

    /// Title, axes, and ticks with their labels.
    fn draw(&self, out: &mut String, title: &str, x: (&str, &[(f64, String)]), y: (&str, &[(f64, String)])) {
        let (top, bottom) = (self.top, self.bottom);
        text(out, LEFT, top - 14.0, "start", 15, title);
        for (value, label) in y.1 {
            let at = self.at_y(*value);
            line(out, (LEFT, at), (RIGHT, at), "#e4e4e4");
            text(out, LEFT - 8.0, at + 4.0, "end", 12, label);
        }
        for (value, label) in x.1 {
            let at = self.at_x(*value);
            line(out, (at, bottom), (at, bottom + 5.0), "#333");
            text(out, at, bottom + 20.0, "middle", 12, label);
        }
        line(out, (LEFT, bottom), (RIGHT, bottom), "#333");
        line(out, (LEFT, top), (LEFT, bottom), "#333");
        text(out, f64::midpoint(LEFT, RIGHT), bottom + 42.0, "middle", 13, x.0);
        let middle = f64::midpoint(top, bottom);
        put(
            out,
            format_args!(
                "<text x=\"22\" y=\"{middle:.1}\" font-size=\"13\" text-anchor=\"middle\" transform=\"rotate(-90 22 {middle:.1})\">{}</text>",
                escaped(y.0)
            ),
        );
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(what);
    out.push('\n');
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    put(
        out,
        format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
    put(
        out,
        format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        ),
    );
}

/// Text as XML wants it.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The next of 1, 2, 5, 10, 20, … that is not below.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= value * 0.999_999).unwrap_or(value)
}

/// A number without digits that say nothing.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Ticks from 0 to `most`, about six of them.
fn ticks(most: f64, unit: &str) -> Vec<(f64, String)> {
    let step = round_up(most / 6.0);
    (0..=(most / step + 1e-9) as u32).map(|index| f64::from(index) * step).map(|at| (at, plain(at) + unit)).collect()
}

impl Graphs {
    /// The picture: a complete SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut out = String::new();
        put(
            &mut out,
            format_args!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
                 height=\"{HEIGHT}\" font-family=\"sans-serif\" fill=\"#222\">"
            ),
        );
        put(&mut out, format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"));
        for (number, words) in wrapped(&self.summary).iter().enumerate() {
            text(&mut out, 30.0, 26.0 + 18.0 * number as f64, "start", 14, words);
        }
        self.draw_delays(&mut out);
        self.draw_use(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn draw_delays(&self, out: &mut String) {
        // Bars of equal width on a logarithmic axis: a delay's order of magnitude is what matters.
        let place = |micros: f64| (micros.max(FASTEST) / FASTEST).log2() * BARS;
        let last = place(self.delays.max() as f64).floor() as usize;
        let mut bars = vec![0_u64; last + 1];
        for (low, width, count) in self.delays.filled() {
            let bar = place(low as f64 + width as f64 / 2.0).floor() as usize;
            bars[bar.min(last)] += count;
        }
        let all = self.delays.count().max(1) as f64;
        let percent = |count: u64| count as f64 * 100.0 / all;
        let most = bars.iter().copied().map(percent).fold(0.0, f64::max);
        let (left, right) = (0.0, (last + 1).max(8) as f64);
        let frame = Frame { top: 100.0, bottom: 320.0, x: (left, right), y: round_up(most.max(1.0)).min(100.0) };
        let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4];
        let labels: Vec<(f64, String)> =
            steps.iter().map(|millis| (place(millis * 1e3), plain(*millis))).filter(|(at, _)| *at <= right).collect();
        frame.draw(
            out,
            "How long copies took, from sending to receiving",
            ("delay in milliseconds (logarithmic)", &labels),
            ("share of copies", &ticks(frame.y, " %")),
        );
        for (bar, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (x, next) = (frame.at_x(bar as f64), frame.at_x(bar as f64 + 1.0));
            // A bar too small to see is drawn one unit high: a few slow copies are what one looks for.
            let y = frame.at_y(percent(*count)).min(frame.bottom - 1.0);
            put(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{DELAY}\"/>",
                    x + 0.5,
                    next - x - 1.0,
                    frame.bottom - y
                ),
            );
        }
        if self.delays.count() == 0 {
            text(out, f64::midpoint(LEFT, RIGHT), 210.0, "middle", 14, "no copies");
            return;
        }
        let marks = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")].map(|(part, name)| {
            let micros = self.delays.quantile(part) as f64;
            (frame.at_x(place(micros)), format!("{name} {:.2} ms", micros / 1e3))
        });
        for (at, _) in &marks {
            put(
                out,
                format_args!(
                    "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#222\" stroke-dasharray=\"4 3\"/>",
                    frame.top, frame.bottom
                ),
            );
        }
        // Below each other, so that near ones do not overlap, and above the lines.
        put(out, format_args!("<g paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"4\">"));
        for (row, (at, label)) in marks.iter().enumerate() {
            let (x, anchor) = if *at > f64::midpoint(LEFT, RIGHT) { (at - 5.0, "end") } else { (at + 5.0, "start") };
            text(out, x, frame.top + 14.0 + 16.0 * row as f64, anchor, 12, label);
        }
        put(out, format_args!("</g>"));
    }

    fn draw_use(&self, out: &mut String) {
        let seconds = self.samples.iter().map(|sample| sample.second).fold(0.0, f64::max).max(0.1);
        let uses = self.samples.iter().flat_map(|sample| [Some(sample.generator), sample.routers]).flatten();
        let most = round_up(uses.fold(0.0, f64::max).max(0.01));
        let frame = Frame { top: 430.0, bottom: 640.0, x: (0.0, seconds), y: most };
        frame.draw(
            out,
            "Processor time over the measured window",
            ("seconds since it began", &ticks(seconds, "")),
            ("cores in use", &ticks(most, "")),
        );
        let mut graph = |name: &str, colour: &str, row: f64, of: &dyn Fn(&Sample) -> Option<f64>| {
            let points: Vec<String> = self
                .samples
                .iter()
                .filter_map(|sample| Some((sample.second, of(sample)?)))
                .map(|(second, cores)| format!("{:.1},{:.1}", frame.at_x(second), frame.at_y(cores)))
                .collect();
            if points.is_empty() {
                return;
            }
            put(
                out,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    points.join(" ")
                ),
            );
            let y = frame.top - 18.0;
            let x = RIGHT - 150.0 * row;
            put(
                out,
                format_args!(
                    "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
                    x - 125.0,
                    x - 100.0
                ),
            );
            text(out, x - 94.0, y + 4.0, "start", 12, name);
        };
        graph("router", ROUTER, 1.0, &|sample| sample.routers);
        graph("load tool", GENERATOR, 0.0, &|sample| Some(sample.generator));
    }
}

/// Lines of at most [`LINE`] characters, broken between words.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs() -> Graphs {
        let mut delays = Histogram::default();
        (0..1_000_u64).for_each(|value| delays.add(300 + value * 7));
        delays.add(90_000);
        let samples = (1..=20)
            .map(|index| Sample {
                second: f64::from(index) / 2.0,
                generator: 0.4,
                routers: Some(0.8 + f64::from(index % 3) / 10.0),
            })
            .collect();
        Graphs { summary: "1 room <of> 100 & \"more\"".to_owned(), delays, samples }
    }

    /// Every tag opened is closed in order, every attribute is quoted, and no number is none.
    fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some(at) = rest.find('<') {
            let between = &rest[..at];
            assert!(!between.contains('>'), "{between}");
            for entity in between.split('&').skip(1) {
                assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|name| entity.starts_with(name)), "{between}");
            }
            let end = at + rest[at..].find('>').expect("a tag ends");
            let tag = &rest[at + 1..end];
            assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn it_is_a_whole_document_with_both_graphs_and_their_units() {
        let svg = graphs().svg();
        assert_well_formed(&svg);
        assert!(svg.starts_with("<svg xmlns="));
        for words in
            ["delay in milliseconds", "share of copies", "seconds since it began", "cores in use", "p99.9 7", "router"]
        {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("1 room &lt;of&gt; 100 &amp; &quot;more&quot;"));
    }

    #[test]
    fn a_run_without_copies_or_processes_is_drawn_as_well() {
        let empty = Graphs { summary: String::new(), delays: Histogram::default(), samples: Vec::new() };
        assert_well_formed(&empty.svg());
        assert!(empty.svg().contains("no copies"));
        let mut alone = graphs();
        alone.samples.iter_mut().for_each(|sample| sample.routers = None);
        let svg = alone.svg();
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<polyline").count(), 1);
    }

    #[test]
    fn bars_hold_every_copy_and_stay_in_the_frame() {
        let mut all = graphs();
        all.delays.add(1);
        all.delays.add(20_000_000);
        let svg = all.svg();
        assert_well_formed(&svg);
        for bar in svg.lines().filter(|line| line.contains(DELAY) && line.starts_with("<rect")) {
            let number = |name: &str| -> f64 {
                bar.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
            };
            assert!(number(" x") >= LEFT && number(" x") + number(" width") <= RIGHT + 1.0, "{bar}");
            assert!(number(" y") >= 99.0 && number(" y") + number(" height") <= 321.0, "{bar}");
        }
    }

    #[test]
    fn ticks_are_round() {
        let labels = |most| ticks(most, "").into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(10.0), "0 2 4 6 8 10");
        assert_eq!(labels(1.0), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(labels(0.02), "0 0.005 0.01 0.015 0.02");
        assert_eq!(labels(60.0), "0 10 20 30 40 50 60");
        assert_eq!([0.3, 1.0, 3.0, 7.0, 60.0].map(round_up), [0.5, 1.0, 5.0, 10.0, 100.0]);
    }

    #[test]
    fn long_summaries_are_broken_between_words() {
        let lines = wrapped(&"word ".repeat(60));
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= LINE));
    }
}
