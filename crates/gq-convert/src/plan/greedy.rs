//! Spends bytes along lower convex hulls, whatever is chosen there.

/// One tensor's choices: bytes, damage and what is chosen; bytes and damage strictly monotone, on the lower convex hull.
pub(crate) struct Choices<T> {
    pub(crate) options: Vec<(u64, f64, T)>,
    pub(crate) chosen: usize,
}

/// Takes the step down a hull that gains most per byte, of those that fit, until the damage is `enough` or nothing fits.
pub(crate) fn spend<T>(
    choices: &mut [Choices<T>],
    limit: u64,
    enough: f64,
    spent: &mut u64,
    expected: &mut f64,
) {
    while *expected > enough {
        let next = choices.iter().enumerate().filter_map(|(index, choice)| {
            let (bytes, damage, _) = &choice.options[choice.chosen];
            let (more, less, _) = choice.options.get(choice.chosen + 1)?;
            let (price, gain) = (more - bytes, damage - less);
            (*spent + price <= limit).then(|| (index, gain / price as f64, price, gain))
        });
        let best = next.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((index, _, price, gain)) = best else { break };
        choices[index].chosen += 1;
        *spent += price;
        *expected -= gain;
    }
}

/// The last step overshoots: whatever is not needed for `enough` is given back, the largest saving first.
pub(crate) fn step_back<T>(choices: &mut [Choices<T>], enough: f64, expected: &mut f64) {
    loop {
        let lower = choices.iter().enumerate().flat_map(|(index, choice)| {
            let &(bytes, damage, _) = &choice.options[choice.chosen];
            let options = choice.options[..choice.chosen].iter().enumerate();
            options.map(move |(option, (less, more, _))| (index, option, bytes - less, more - damage))
        });
        // The sum is kept up to date by differences, which round.
        let fits = lower.filter(|(.., loss)| *expected + loss <= enough * (1.0 - 1e-12));
        let best =
            fits.max_by(|a, b| a.2.cmp(&b.2).then(b.3.total_cmp(&a.3)).then((b.0, b.1).cmp(&(a.0, a.1))));
        let Some((index, option, _, loss)) = best else { return };
        choices[index].chosen = option;
        *expected += loss;
    }
}

/// The lower convex hull of (bytes, damage), from the smallest on.
pub(crate) fn hull<T>(mut options: Vec<(u64, f64, T)>) -> Vec<(u64, f64, T)> {
    options.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut hull: Vec<(u64, f64, T)> = Vec::new();
    for option in options {
        if hull.last().is_some_and(|last| option.1 >= last.1 || option.0 == last.0) {
            continue;
        }
        while let [.., a, b] = hull.as_slice() {
            let slope = |p: &(u64, f64, T), q: &(u64, f64, T)| (p.1 - q.1) / (q.0 - p.0) as f64;
            if slope(a, b) > slope(b, &option) {
                break;
            }
            hull.pop();
        }
        hull.push(option);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hulls_are_convex() {
        let points =
            vec![(10, 8.0, ()), (20, 4.0, ()), (30, 3.9, ()), (40, 1.0, ()), (40, 2.0, ()), (50, 1.5, ())];
        let bytes: Vec<u64> = hull(points).iter().map(|p| p.0).collect();
        assert_eq!(bytes, [10, 20, 40]);
    }
}
