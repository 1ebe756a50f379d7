//! How straight a curve is: least squares, and what the line leaves over.

use serde::Serialize;

/// The line through points, `y = intercept + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fit {
    /// `y` at zero.
    pub intercept: f64,
    /// Growth of `y` per unit of `x`.
    pub slope: f64,
    /// Share of the variance of `y` that the line explains, 1 is a straight line.
    pub r_squared: f64,
    /// Largest distance of a point from the line, in percent of the largest `y`.
    pub worst_residual_percent: f64,
}

impl Fit {
    /// Fits points of (x, y); `None` with fewer than two different `x`.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let variance_x = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
        if points.len() < 2 || variance_x <= f64::EPSILON {
            return None;
        }
        let covariance = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
        let slope = covariance / variance_x;
        let intercept = mean_y - slope * mean_x;
        let residual = |(x, y): &(f64, f64)| y - intercept - slope * x;
        let variance_y = points.iter().map(|(_, y)| (y - mean_y).powi(2)).sum::<f64>();
        let unexplained = points.iter().map(|point| residual(point).powi(2)).sum::<f64>();
        let largest = points.iter().map(|(_, y)| y.abs()).fold(0.0, f64::max);
        let worst = points.iter().map(|point| residual(point).abs()).fold(0.0, f64::max);
        Some(Self {
            intercept,
            slope,
            r_squared: if variance_y > 0.0 { 1.0 - unexplained / variance_y } else { 1.0 },
            worst_residual_percent: if largest > 0.0 { 100.0 * worst / largest } else { 0.0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_a_line_leave_nothing_over() {
        let fit = Fit::of(&[(0.0, 1.0), (1.0, 3.0), (4.0, 9.0)]).unwrap();
        assert!((fit.slope - 2.0).abs() < 1e-9 && (fit.intercept - 1.0).abs() < 1e-9);
        assert!(fit.r_squared > 1.0 - 1e-9 && fit.worst_residual_percent < 1e-9);
    }

    #[test]
    fn a_parabola_is_not_called_straight() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), f64::from(x * x))).collect();
        let fit = Fit::of(&points).unwrap();
        assert!(fit.r_squared < 0.95 && fit.worst_residual_percent > 10.0, "{fit:?}");
    }

    #[test]
    fn one_place_has_no_slope() {
        assert_eq!(Fit::of(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Fit::of(&[]), None);
    }
}
