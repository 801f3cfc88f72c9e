//! Queries of TPC-H. Money is in cents, shares are in hundredths, dates are days since 1992, names are numbers.
//!
//! What is added up is the difference of a row, as in differential dataflow's own version of these queries: nothing
//! looks at a group of rows again, there are only running totals.

use differential_dataflow::operators::CountTotal;

use super::{Output, Rows};

/// Order, line, part, supplier, quantity, price, discount, tax, flag, status, day of shipping.
pub(super) type Item = (u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);

/// Order, customer, day, year.
pub(super) type Order = (u32, u32, u32, u32);

/// Customer, segment, nation.
pub(super) type Customer = (u32, u32, u32);

fn revenue(price: u32, discount: u32) -> isize {
    price as isize * (100 - discount as isize)
}

/// Of all that was shipped by a day.
pub(super) fn q1(items: Rows<'_, Item>, output: &Output) {
    let totals = items.explode(|(_, _, _, _, quantity, price, discount, tax, flag, status, shipped)| {
        let reduced = revenue(price, discount);
        let sums = (quantity as isize, price as isize, reduced);
        let others = (reduced * (100 + tax as isize), discount as isize, 1isize);
        (shipped <= 2436).then_some(((flag, status), (sums, others)))
    });
    output.take(totals.count_total(), |&((flag, status), ((quantity, price, reduced), others))| {
        let (charge, discount, count) = others;
        let sums = [quantity, price, reduced, charge, discount, count].map(|sum| sum as i64);
        [flag.into(), status.into(), sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]]
    });
}

/// Of orders of one segment that were placed before a day, what was shipped after it.
pub(super) fn q3(
    items: Rows<'_, Item>,
    orders: Rows<'_, Order>,
    customers: Rows<'_, Customer>,
    output: &Output,
) {
    const DAY: u32 = 1169;
    let customers = customers.flat_map(|(customer, segment, _)| (segment == 1).then_some(customer));
    let placed = orders.flat_map(|(order, customer, day, _)| (day < DAY).then_some((customer, (order, day))));
    let orders = placed
        .arrange_by_key()
        .join_core(customers.arrange_by_self(), |_, &(order, day), &()| Some((order, day)));
    let sales = items.explode(|(order, _, _, _, _, price, discount, _, _, _, shipped)| {
        (shipped > DAY).then_some((order, revenue(price, discount)))
    });
    let sales = sales
        .arrange_by_self()
        .join_core(orders.arrange_by_key(), |&order, &(), &day| Some((order, day)))
        .count_total();
    output.take(sales, |&((order, day), revenue)| [order.into(), day.into(), revenue as i64]);
}

/// Of orders of a year, what customers of a region bought from suppliers of their own nation.
pub(super) fn q5(
    items: Rows<'_, Item>,
    orders: Rows<'_, Order>,
    customers: Rows<'_, Customer>,
    suppliers: Rows<'_, (u32, u32)>,
    nations: Rows<'_, (u32, u32)>,
    output: &Output,
) {
    let nations = nations.flat_map(|(nation, region)| (region == 2).then_some(nation)).arrange_by_self();
    let customers = customers
        .map(|(customer, _, nation)| (nation, customer))
        .arrange_by_key()
        .join_core(nations, |&nation, &customer, &()| Some((customer, nation)));
    let placed = orders.flat_map(|(order, customer, _, year)| (year == 1994).then_some((customer, order)));
    let orders = placed
        .arrange_by_key()
        .join_core(customers.arrange_by_key(), |_, &order, &nation| Some((order, nation)));
    let sales = items.explode(|(order, _, _, supplier, _, price, discount, _, _, _, _)| {
        Some(((order, supplier), revenue(price, discount)))
    });
    let sales = sales
        .arrange_by_key()
        .join_core(orders.arrange_by_key(), |_, &supplier, &nation| Some((supplier, nation)))
        .arrange_by_self()
        .join_core(suppliers.arrange_by_self(), |&(_, nation), &(), &()| Some(nation))
        .count_total();
    output.take(sales, |&(nation, revenue)| [nation.into(), revenue as i64]);
}

/// Of parts of a kind, the profit by the supplier's nation and the year of the order.
pub(super) fn q9(
    items: Rows<'_, Item>,
    orders: Rows<'_, Order>,
    suppliers: Rows<'_, (u32, u32)>,
    parts: Rows<'_, (u32, u32)>,
    offers: Rows<'_, (u32, u32, u32)>,
    output: &Output,
) {
    let parts = parts.flat_map(|(part, green)| (green == 1).then_some(part)).arrange_by_self();
    let items = items
        .map(|(order, line, part, supplier, quantity, price, discount, ..)| {
            (part, (supplier, order, line, quantity, price, discount))
        })
        .arrange_by_key()
        .join_core(parts, |&part, &(supplier, order, line, quantity, price, discount), &()| {
            Some(((part, supplier), (order, line, quantity, price, discount)))
        });
    let offers = offers.map(|(part, supplier, cost)| ((part, supplier), cost)).arrange_by_key();
    let profits = items
        .arrange_by_key()
        .join_core(offers, |&(_, supplier), &(order, _, quantity, price, discount), &cost| {
            let cost = 100 * cost as isize * quantity as isize;
            Some((supplier, (order, revenue(price, discount) - cost)))
        })
        .explode(|(supplier, (order, profit))| Some(((supplier, order), profit)));
    let profits = profits
        .arrange_by_key()
        .join_core(suppliers.arrange_by_key(), |_, &order, &nation| Some((order, nation)))
        .arrange_by_key()
        .join_core(orders.map(|(order, _, _, year)| (order, year)).arrange_by_key(), |_, &nation, &year| {
            Some((nation, year))
        })
        .count_total();
    output.take(profits, |&((nation, year), profit)| [nation.into(), year.into(), profit as i64]);
}
