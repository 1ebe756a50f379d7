//! Tables in Markdown, aligned for a terminal.

/// Writes rows under a header; the first column is left-aligned, the others right-aligned.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut out = line(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    let rules = widths.iter().enumerate().map(|(at, width)| {
        if at == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
    });
    out.push_str(&line(&rules.collect::<Vec<_>>()));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out
}

/// Median; the mean of the middle two if there are as many below as above.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_ignores_what_is_not_a_number() {
        assert_eq!(median(&[3.0, 1.0, f64::NAN, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = markdown(&["a", "b"], &[vec!["long".into(), "1".into()]]);
        assert_eq!(text, "| a    |   b |\n| ---- | --: |\n| long |   1 |\n");
    }
}
