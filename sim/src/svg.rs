//! A picture of a run: what flowed beside the budget, and where nodes were.

use std::fmt::{self, Write as _};

use crate::node::Lane;
use crate::outcome::Outcome;
use crate::series::Sample;
use crate::world::World;

/// The picture's size.
const SIZE: (f64, f64) = (980.0, 640.0);
/// The left and the right edge of both panels.
const EDGES: (f64, f64) = (80.0, 780.0);
/// The top and the bottom of the panel of bytes, and of that of nodes.
const BYTES: (f64, f64) = (60.0, 270.0);
const NODES: (f64, f64) = (340.0, 570.0);
/// More points than pixels show nothing more.
const POINTS: usize = 700;

/// A colour that can be told from its neighbours, also by those who see few colours.
fn colour(lane: Lane) -> &'static str {
    match lane {
        Lane::Before => "#d9d9d9",
        Lane::Pulling => "#9ecae1",
        Lane::Queued => "#4292c6",
        Lane::Activating => "#fdae61",
        Lane::Done => "#41ab5d",
        Lane::Held => "#bcbddc",
        Lane::Failed => "#d7301f",
    }
}

/// One point of both panels.
struct Point {
    seconds: f64,
    /// Bytes per second since the point before, and what there might have been.
    rate: f64,
    cap: f64,
    lanes: [f64; Lane::ALL.len()],
}

/// Draws a run.
pub(crate) fn draw(world: &World, outcome: &Outcome) -> String {
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let _ = picture(&mut svg, &points(&world.series.samples), outcome);
    svg
}

fn points(samples: &[Sample]) -> Vec<Point> {
    let mut points = Vec::new();
    let mut before = (0.0, 0.0);
    for sample in samples.iter().step_by(samples.len().div_ceil(POINTS).max(1)) {
        let seconds = sample.at.as_secs_f64();
        let passed = seconds - before.0;
        let rate = if passed > 0.0 { (sample.moved - before.1) / passed } else { 0.0 };
        let lanes = sample.lanes.map(f64::from);
        points.push(Point { seconds, rate, cap: sample.cap, lanes });
        before = (seconds, sample.moved);
    }
    points
}

fn picture(svg: &mut String, points: &[Point], of: &Outcome) -> fmt::Result {
    let (width, height) = SIZE;
    let seconds = points.last().map_or(1.0, |point| point.seconds.max(1.0));
    let cap = points.iter().map(|point| point.cap.max(point.rate)).fold(1.0, f64::max) * 1.08;
    let nodes = points.iter().map(|point| point.lanes.iter().sum()).fold(1.0, f64::max);
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="{width}" height="{height}" fill="white"/>
<text x="80" y="28" font-size="16" font-weight="bold">{}: {} nodes, seed {}</text>
<text x="780" y="28" text-anchor="end" fill="#555">{}</text>"##,
        of.name,
        of.nodes,
        of.seed,
        if of.is_good() { "every law held" } else { "a law was broken" },
    )?;
    let x = |at: f64| EDGES.0 + at / seconds * (EDGES.1 - EDGES.0);
    let y = |(top, bottom): (f64, f64), part: f64| bottom - part * (bottom - top);

    let area: String = points.iter().fold(String::new(), |mut path, point| {
        let _ = write!(path, " {:.1},{:.1}", x(point.seconds), y(BYTES, point.rate / cap));
        path
    });
    let (left, right, bottom) = (EDGES.0, EDGES.1, BYTES.1);
    writeln!(
        svg,
        r##"<polygon points="{left},{bottom}{area} {right},{bottom}" fill="#6baed6" stroke="#2171b5"/>"##
    )?;
    let line: String = points.iter().fold(String::new(), |mut path, point| {
        let _ = write!(path, " {:.1},{:.1}", x(point.seconds), y(BYTES, point.cap / cap));
        path
    });
    writeln!(
        svg,
        r##"<polyline points="{line}" fill="none" stroke="#d7301f" stroke-width="2"/>"##
    )?;

    let mut below = vec![0.0; points.len()];
    for lane in Lane::ALL {
        let above: Vec<f64> =
            points.iter().zip(&below).map(|(p, below)| below + p.lanes[lane as usize]).collect();
        let mut path = String::new();
        for (point, height) in points.iter().zip(&above) {
            write!(path, " {:.1},{:.1}", x(point.seconds), y(NODES, height / nodes))?;
        }
        for (point, height) in points.iter().zip(&below).rev() {
            write!(path, " {:.1},{:.1}", x(point.seconds), y(NODES, height / nodes))?;
        }
        writeln!(svg, r##"<polygon points="{path}" fill="{}"/>"##, colour(lane))?;
        below = above;
    }

    axes(svg, BYTES, seconds, (cap / 1e6, "MB/s"))?;
    axes(svg, NODES, seconds, (nodes, "nodes"))?;
    legend(svg)?;
    writeln!(svg, "</svg>")
}

/// A panel's frame, its two axes and what they say.
fn axes(
    svg: &mut String,
    (top, bottom): (f64, f64),
    seconds: f64,
    (most, unit): (f64, &str),
) -> fmt::Result {
    let (left, right) = EDGES;
    let (width, height) = (right - left, bottom - top);
    writeln!(
        svg,
        r##"<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#444"/>
<text x="{left}" y="{}" fill="#555">{unit}</text>
<text x="{right}" y="{}" text-anchor="end" fill="#555">virtual seconds</text>"##,
        top - 6.0,
        bottom + 32.0,
    )?;
    for (tick, says) in ticks(most) {
        let y = bottom - tick / most * height;
        writeln!(
            svg,
            r##"<line x1="{}" y1="{y:.1}" x2="{left}" y2="{y:.1}" stroke="#444"/>
<text x="{}" y="{:.1}" text-anchor="end">{says}</text>"##,
            left - 5.0,
            left - 8.0,
            y + 4.0,
        )?;
    }
    for (tick, says) in ticks(seconds) {
        let x = left + tick / seconds * width;
        writeln!(
            svg,
            r##"<line x1="{x:.1}" y1="{bottom}" x2="{x:.1}" y2="{}" stroke="#444"/>
<text x="{x:.1}" y="{}" text-anchor="middle">{says}</text>"##,
            bottom + 5.0,
            bottom + 18.0,
        )?;
    }
    Ok(())
}

fn legend(svg: &mut String) -> fmt::Result {
    let x = EDGES.1 + 20.0;
    let bytes = [("#6baed6", "bytes that come"), ("#d7301f", "the budget")];
    let lanes = Lane::ALL.iter().rev().map(|lane| (colour(*lane), lane.name()));
    let rows = bytes.into_iter().zip(0_u32..).map(|(row, at)| (row, BYTES.0, at));
    let rows = rows.chain(lanes.zip(0_u32..).map(|(row, at)| (row, NODES.0, at)));
    for ((colour, name), top, at) in rows {
        let y = top + 8.0 + f64::from(at) * 22.0;
        writeln!(
            svg,
            r##"<rect x="{x}" y="{y}" width="14" height="14" fill="{colour}"/>
<text x="{}" y="{}">{name}</text>"##,
            x + 20.0,
            y + 12.0,
        )?;
    }
    Ok(())
}

/// Round numbers from 0 to at most `most`, four to ten of them.
fn ticks(most: f64) -> impl Iterator<Item = (f64, String)> {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| most / step <= 8.0).unwrap_or(most);
    let places = usize::from(step < 1.0);
    let ticks = (0..=10_u32).map(move |number| f64::from(number) * step);
    ticks.take_while(move |tick| *tick <= most).map(move |tick| (tick, format!("{tick:.places$}")))
}
