//! The result as one HTML page without any dependency: figures, plots over time and the distribution
//! of the latency, drawn as SVG here.

use std::fmt::Write as _;

use crate::measure::TimeSummary;
use crate::report::{Report, Second};

/// Size of a plot, pixels.
const WIDTH: f64 = 640.0;
/// See [`WIDTH`].
const HEIGHT: f64 = 200.0;
/// Room for labels at the left and the bottom.
const LEFT: f64 = 56.0;
/// See [`LEFT`].
const BOTTOM: f64 = 24.0;
/// Room at the top and the right.
const MARGIN: f64 = 10.0;
/// Steps of an axis.
const STEPS: usize = 4;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#d0d4da;--dim:#667;--a:#1668c1;--b:#c2571a;--bad:#b3261e;--good:#1b7f3b}
@media(prefers-color-scheme:dark){:root{--line:#3a3f47;--dim:#9aa;--a:#6ab0ff;--b:#ffab70;--bad:#ff8a80;--good:#7ddc9a}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1360px;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:0 0 .4rem}
.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1.2rem 0}
.tile,.plot,section{border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.5rem;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(34rem,1fr));gap:.8rem;margin-bottom:.8rem}
svg{width:100%;height:auto}text{fill:var(--dim);font-size:11px}
table{border-collapse:collapse;width:100%}td,th{text-align:right;padding:.2rem .6rem;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{font-weight:600}";

/// Renders the page. `violations` decide the verdict.
pub(crate) fn render(report: &Report, violations: &[String]) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let options = &report.options;
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>Load test</title>\
         <meta name=viewport content='width=device-width'><style>{STYLE}</style>\
         <h1>Load test of {}</h1><p class=dim>{} room{} of {} publisher{} and {} subscriber{}, {}, \
         subscribers show {}, measured for {:.0} s after everybody had joined</p>",
        escape(options.url.as_str()),
        options.rooms,
        plural(options.rooms),
        options.publishers,
        plural(options.publishers),
        options.subscribers,
        plural(options.subscribers),
        media(report),
        options.layout.describe(),
        report.seconds,
    );
    verdict(&mut out, violations);
    tiles(&mut out, report);
    plots(&mut out, report);
    times(&mut out, report);
    counts(&mut out, report);
    out.push_str("</html>\n");
    out
}

fn media(report: &Report) -> String {
    let options = &report.options;
    let mut parts = Vec::new();
    if options.audio {
        parts.push("audio".to_owned());
    }
    if options.video {
        let kind = if options.no_simulcast { "one layer" } else { "simulcast" };
        parts.push(format!("720p video ({kind})"));
    }
    if let Some(data) = options.data {
        parts.push(format!("{} data messages/s of {} B", data.rate, data.bytes));
    }
    if parts.is_empty() { "no media".to_owned() } else { parts.join(" and ") }
}

fn verdict(out: &mut String, violations: &[String]) {
    if violations.is_empty() {
        out.push_str("<p class=good>Passed: no limit that was set for this test was exceeded.</p>");
    }
    for violation in violations {
        let _ = write!(out, "<p class=bad>Failed: {}</p>", escape(violation));
    }
}

fn tiles(out: &mut String, report: &Report) {
    out.push_str("<div class=tiles>");
    let joins = &report.joins;
    for (value, label) in [
        (format!("{}", joins.joined), "participants joined".to_owned()),
        (format!("{}", joins.failed + joins.dropped), "failed or dropped".to_owned()),
        (grouped(report.packets_per_second), "packets received per second".to_owned()),
        (format!("{:.1} Mbit/s", report.bits_per_second / 1e6), "received".to_owned()),
        (format!("{:.4} %", report.loss_percent), "of packets lost for good".to_owned()),
        (format!("{:.2} ms", report.latency_p99_ms()), "latency that 99 % stay below".to_owned()),
        (format!("{:.0} ms", joins.time.p50_ms), "median time to join".to_owned()),
        (format!("{}", report.received.freezes), "freezes of video".to_owned()),
    ] {
        let _ = write!(out, "<div class=tile><b>{value}</b>{label}</div>");
    }
    out.push_str("</div>");
}

fn plots(out: &mut String, report: &Report) {
    let timeline = &report.timeline;
    let series = |f: fn(&Second) -> f64| -> Vec<(f64, f64)> {
        timeline.iter().map(|second| (second.at_s, f(second))).collect()
    };
    out.push_str("<div class=plots>");
    let packets = series(|second| second.packets_in as f64);
    plot(out, "Packets received per second", &[("", "a", packets)], Axis::Seconds);
    let p50 = series(|second| second.latency_p50_ms);
    let p99 = series(|second| second.latency_p99_ms);
    let latency = [("median", "a", p50), ("99th percentile", "b", p99)];
    plot(out, "Latency in milliseconds", &latency, Axis::Seconds);
    let joined = series(|second| second.joined as f64);
    let failed = series(|second| second.failed as f64);
    let joins = [("joined", "a", joined), ("failed", "b", failed)];
    plot(out, "Participants", &joins, Axis::Seconds);
    // Nines of the quantile: 90 %, 99 %, 99.9 % at even distances.
    let curve = report.latency_curve.iter().map(|(quantile, ms)| {
        let nines = -(1.0 - quantile).max(1e-5).log10();
        (nines, *ms)
    });
    let curve = [("", "a", curve.collect())];
    plot(out, "Latency by percentile, milliseconds", &curve, Axis::Nines);
    out.push_str("</div>");
}

fn times(out: &mut String, report: &Report) {
    out.push_str(
        "<section><h2>Times in milliseconds</h2><table><tr><th><th>samples<th>mean<th>median<th>90 %\
         <th>99 %<th>99.9 %<th>maximum",
    );
    let rows: [(&str, &TimeSummary); 7] = [
        ("Latency of audio", &report.audio_latency),
        ("Latency of video", &report.video_latency),
        ("Latency of data", &report.data_latency),
        ("Jitter", &report.jitter),
        ("Join: WebSocket opened to media connected", &report.joins.time),
        ("First packet of a track", &report.first_packet),
        ("First whole frame of a track", &report.first_frame),
    ];
    for (name, t) in rows.iter().filter(|(_, times)| times.count > 0) {
        let _ = write!(
            out,
            "<tr><td>{name}<td>{}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.2}",
            grouped(t.count as f64),
            t.mean_ms,
            t.p50_ms,
            t.p90_ms,
            t.p99_ms,
            t.p999_ms,
            t.max_ms
        );
    }
    out.push_str(
        "</table><p class=dim>Latency runs from the encryption of a packet at its publisher to its \
         arrival at a subscriber, on one clock; a random sample of packets is timed. Jitter is the \
         change of the transit time from one frame to the next.</p></section>",
    );
}

fn counts(out: &mut String, report: &Report) {
    let (received, published) = (&report.received, &report.published);
    out.push_str("<section style='margin-top:.8rem'><h2>Counters of the window</h2><table>");
    for (name, value) in [
        ("Packets sent by publishers", published.packets),
        ("Key frames sent", published.key_frames),
        ("Key frames asked for by the server", published.plis),
        ("Packets that the server asked for again", published.nacked),
        ("Packets received", received.packets),
        ("Sequence numbers that did not come in turn", received.gaps),
        ("Of those, recovered", received.recovered),
        ("Of those, lost for good", received.lost),
        ("Packets received twice", received.duplicates),
        ("Packets that subscribers asked for again", received.nacked),
        ("Packets authenticated", received.authenticated),
        ("Packets that failed authentication", received.not_authentic),
        ("Tracks offered", received.tracks),
        ("Tracks without any media", received.tracks.saturating_sub(received.tracks_with_media)),
        ("Video frames received", received.frames),
        ("Milliseconds of frozen video", received.freeze_ms),
        ("Data messages received", received.data_messages),
        ("Packets refused by the tester's own sockets", report.tester.send_drops),
        ("Datagrams that its sockets had no room for", report.tester.receive_drops),
        ("Datagrams that the server's sockets had no room for", report.tester.server_receive_drops),
    ] {
        let _ = write!(out, "<tr><td>{name}<td>{}", grouped(value as f64));
    }
    for (error, count) in &report.joins.errors {
        let _ = write!(out, "<tr class=bad><td>{}<td>{count}", escape(error));
    }
    let _ = write!(
        out,
        "</table><p class=dim>The load tester itself used {:.1} % of a core, {:.2} µs per packet.</p>\
         </section>",
        100.0 * report.tester.cpu_s / report.seconds,
        report.tester_cpu_us_per_packet
    );
}

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Seconds,
    Nines,
}

type Series<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

fn plot(out: &mut String, title: &str, series: &[Series<'_>], axis: Axis) {
    let points = || series.iter().flat_map(|(_, _, points)| points);
    let max_x = points().map(|point| point.0).fold(1.0, f64::max);
    let top = nice(points().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / max_x * (WIDTH - LEFT - MARGIN);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - MARGIN);
    let _ = write!(out, "<div class=plot><h2>{title}");
    for (name, color, _) in series.iter().filter(|(name, ..)| !name.is_empty()) {
        let _ = write!(out, " <small style='color:var(--{color})'>{name}</small>");
    }
    let _ = write!(out, "</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title}'>");
    for step in 0..=STEPS {
        let value = top * step as f64 / STEPS as f64;
        let at = y(value);
        let _ = write!(
            out,
            "<path d='M{LEFT} {at:.1}H{WIDTH}' stroke='var(--line)'/>\
             <text x='{:.0}' y='{:.1}' text-anchor=end>{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    let labels: Vec<(f64, String)> = match axis {
        Axis::Seconds => (0..=STEPS)
            .map(|step| max_x * step as f64 / STEPS as f64)
            .map(|value| (value, format!("{value:.0} s")))
            .collect(),
        Axis::Nines => ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
            .iter()
            .enumerate()
            .map(|(nines, label)| (nines as f64, (*label).to_owned()))
            .filter(|(value, _)| *value <= max_x)
            .collect(),
    };
    for (value, label) in labels {
        let _ = write!(
            out,
            "<text x='{:.1}' y='{:.0}' text-anchor=middle>{label}</text>",
            x(value).min(WIDTH - 2.0 * MARGIN),
            HEIGHT - 6.0
        );
    }
    for (_, color, points) in series {
        let path: String =
            points.iter().map(|(px, py)| format!("{:.1},{:.1} ", x(*px), y(*py))).collect();
        let _ = write!(
            out,
            "<polyline points='{path}' fill=none stroke='var(--{color})' stroke-width=2 \
             stroke-linejoin=round />"
        );
    }
    out.push_str("</svg></div>");
}

/// The end of an axis that is not below `max`: [`STEPS`] times 1, 2 or 5 times a power of ten, so that
/// the steps are round, and whole where people are counted.
fn nice(max: f64) -> f64 {
    let step = if max > 0.0 { max / STEPS as f64 } else { 1.0 };
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let round = factors.iter().map(|factor| factor * power).find(|round| *round >= step);
    STEPS as f64 * round.unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 10.0 || v == v.trunc() => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// A whole number with spaces between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_ends_at_a_round_number() {
        assert_eq!(nice(0.0), 4.0);
        assert_eq!(nice(8.0), 8.0);
        assert_eq!(nice(37.0), 40.0);
        assert_eq!(nice(100.0), 200.0);
        assert!((nice(0.3) - 0.4).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_grouped_and_text_is_escaped() {
        assert_eq!(grouped(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(escape("<a href='x'>"), "&lt;a href=&#39;x&#39;&gt;");
    }
}
