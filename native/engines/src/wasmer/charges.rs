//! Where a function is charged, and what it takes there.
//!
//! Within a function at most `REACH` instructions run between two charges, whichever way the
//! code goes: each charge takes the units of the longest way from the one before to itself.
//! What runs between the last charge and the return is taken by the first.

use wasmer::sys::wasmparser::Operator;

/// Instructions that may run uncharged.
const REACH: usize = 512;
/// Instructions for one unit.
const OPERATORS: usize = 16;
/// Locals that are moved in the time of an instruction, where ways part or meet.
const MOVED: usize = 64;
/// Instructions that a loop which is entered at once may take for its function, each turn.
const AROUND: usize = 256;

/// The charges of a function: before which instruction, and how many units; in their order.
pub fn charges(operators: &[Operator<'_>], locals: usize) -> Vec<(usize, i64)> {
    let edge = 1 + locals / MOVED;
    let mut walk = Walk { edge, charges: Vec::new(), open: Vec::new(), run: Some(0), returned: 0 };
    for (at, operator) in operators.iter().enumerate() {
        walk.step(at, operator);
    }
    let Walk { mut charges, returned, .. } = walk;
    // Go's functions are a loop, with which they come back to where they were.
    let entered = operators.iter().position(|each| !is_passed(each));
    match charges.first_mut() {
        Some(head)
            if matches!(operators[head.before - 1], Operator::Loop { .. })
                && entered == Some(head.before - 1)
                && (!head.turns || returned <= head.run + AROUND) =>
        {
            head.run = head.run.max(head.before + edge + returned);
        }
        _ => charges.insert(0, Charge { before: 0, run: returned, turns: false }),
    }
    charges.into_iter().map(|each| (each.before, 1 + (each.run / OPERATORS) as i64)).collect()
}

struct Charge {
    /// The instruction that follows.
    before: usize,
    /// Instructions since the charge before, at most.
    run: usize,
    /// Whether it is at the head of a loop that is turned.
    turns: bool,
}

/// What a branch leads to.
struct Label {
    /// The charge of the loop that it is the head of.
    head: Option<usize>,
    /// Instructions since the last charge, at most, with which its end is reached.
    end: Option<usize>,
    /// The same at an `if`, for its other half.
    other: Option<usize>,
}

struct Walk {
    /// What an instruction counts where ways part or meet.
    edge: usize,
    charges: Vec<Charge>,
    open: Vec<Label>,
    /// Instructions since the last charge, at most; none where nothing comes.
    run: Option<usize>,
    /// The same at a return.
    returned: usize,
}

impl Walk {
    fn step(&mut self, at: usize, operator: &Operator<'_>) {
        if let Some(run) = self.run.filter(|run| *run >= REACH) {
            self.charges.push(Charge { before: at, run, turns: false });
            self.run = Some(0);
        }
        let counted = if is_edge(operator) { self.edge } else { 1 };
        self.run = self.run.map(|run| run + counted);
        match operator {
            Operator::Block { .. } => self.open(None, None),
            Operator::If { .. } => self.open(None, self.run),
            Operator::Loop { .. } => {
                let run = self.run.unwrap_or(0);
                self.charges.push(Charge { before: at + 1, run, turns: false });
                self.run = self.run.map(|_| 0);
                self.open(Some(self.charges.len() - 1), None);
            }
            Operator::Else => {
                if let Some(label) = self.open.last_mut() {
                    label.end = label.end.max(self.run);
                    self.run = label.other.take();
                }
            }
            Operator::End => match self.open.pop() {
                Some(label) => self.run = self.run.max(label.end).max(label.other),
                None => self.leave(),
            },
            Operator::Br { relative_depth } => {
                self.branch(*relative_depth);
                self.run = None;
            }
            Operator::BrIf { relative_depth } => self.branch(*relative_depth),
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten().chain([targets.default()]) {
                    self.branch(depth);
                }
                self.run = None;
            }
            Operator::Return => {
                self.leave();
                self.run = None;
            }
            Operator::Unreachable => self.run = None,
            _ => {}
        }
    }

    fn open(&mut self, head: Option<usize>, other: Option<usize>) {
        self.open.push(Label { head, end: None, other });
    }

    fn branch(&mut self, depth: u32) {
        let Some(run) = self.run else { return };
        let Some(place) = self.open.len().checked_sub(1 + depth as usize) else {
            return self.leave();
        };
        match self.open[place].head {
            Some(charge) => {
                let head = &mut self.charges[charge];
                head.run = head.run.max(run);
                head.turns = true;
            }
            None => self.open[place].end = self.open[place].end.max(Some(run)),
        }
    }

    fn leave(&mut self) {
        self.returned = self.returned.max(self.run.unwrap_or(0));
    }
}

/// Whether ways part or meet here, where what the locals hold may have to be moved.
fn is_edge(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
    )
}

/// Whether the next instruction always follows: without jumping, calling or trapping.
fn is_passed(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::LocalGet { .. }
            | Operator::LocalSet { .. }
            | Operator::LocalTee { .. }
            | Operator::GlobalGet { .. }
            | Operator::GlobalSet { .. }
            | Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::Block { .. }
            | Operator::Nop
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmer::sys::wasmparser::{Parser, Payload};

    /// Calls `then` with the instructions of the module's only function.
    fn of<R>(body: &str, then: impl FnOnce(&[Operator<'_>]) -> R) -> R {
        let wasm = wat::parse_str(format!("(module (func (param i32) (local i32) {body}))"));
        let wasm = wasm.unwrap();
        for payload in Parser::new(0).parse_all(&wasm) {
            if let Payload::CodeSectionEntry(code) = payload.unwrap() {
                let reader = code.get_operators_reader().unwrap();
                return then(&reader.into_iter().collect::<Result<Vec<_>, _>>().unwrap());
            }
        }
        unreachable!("it has a function")
    }

    fn plan(body: &str) -> Vec<(usize, i64)> {
        of(body, |operators| charges(operators, 1))
    }

    #[test]
    fn a_function_takes_what_its_longest_way_runs() {
        assert_eq!(plan(""), [(0, 1)]);
        assert_eq!(plan(&"nop ".repeat(100)), [(0, 7)]);
        let halves = format!("(if (local.get 0) (then {}) (else nop))", "nop ".repeat(100));
        assert_eq!(plan(&halves), [(0, 7)]);
        let ended = format!("(if (local.get 0) (then {} unreachable))", "nop ".repeat(100));
        assert_eq!(plan(&ended), [(0, 1)]);
    }

    #[test]
    fn long_ways_are_charged_on_the_way() {
        let found = plan(&"nop ".repeat(2000));
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 512, 1024, 1536]);
        // Jumping over a charge does not help.
        let hop = format!("(block (br_if 0 (local.get 0)) {}) nop ", "nop ".repeat(300));
        let units: i64 = plan(&hop.repeat(20)).iter().map(|(_, units)| units).sum();
        assert!(units >= 20 * 300 / 16, "{units}");
    }

    #[test]
    fn a_loop_that_is_entered_at_once_is_charged_there_alone() {
        let go = "(local.set 1 (i32.const 0)) (loop (br_if 0 (local.get 0)))";
        assert_eq!(plan(go), [(3, 1)]);
        // Not where its turns would take much more than they run.
        let tail = format!("{go} {}", "nop ".repeat(400));
        assert_eq!(plan(&tail), [(0, 26), (3, 1)]);
        assert_eq!(plan("(drop (i32.load (i32.const 0))) (loop)").len(), 2);
        // A charge for the way so far, where the first jump comes just before it, is no loop.
        let long = format!("{} (br_if 0 (local.get 0)) nop", "nop ".repeat(510));
        assert_eq!(plan(&long), [(0, 33), (512, 33)]);
    }

    #[test]
    fn moving_many_locals_takes_units_wherever_they_may_be_moved() {
        let body = "(block (br_if 0 (local.get 0)) (loop)) (br_if 0 (local.get 0)) unreachable";
        let units = |locals| of(body, |operators| charges(operators, locals))[0].1;
        assert_eq!((units(1), units(63)), (1, 1));
        assert!(units(6_400) >= 3 * 100 / 16, "{}", units(6_400));
    }

    /// A function of random blocks, loops and jumps.
    fn random(next: &mut impl FnMut(u32) -> u32, depth: u32, room: &mut u32) -> String {
        let mut body = String::new();
        for _ in 0..next(6) {
            let nops = if next(8) == 0 { next(700) } else { next(20) };
            body += &"nop ".repeat(nops as usize);
            if *room == 0 {
                break;
            }
            *room -= 1;
            let inner = |next: &mut _, room: &mut _| random(next, depth + 1, room);
            match next(8) {
                0 => body += &format!("(block {}) ", inner(next, room)),
                1 => body += &format!("(loop {}) ", inner(next, room)),
                2 => body += &format!("(if (local.get 0) (then {})) ", inner(next, room)),
                3 => {
                    let (one, other) = (inner(next, room), inner(next, room));
                    body += &format!("(if (local.get 0) (then {one}) (else {other})) ");
                }
                4 => body += &format!("(br_if {} (local.get 0)) ", next(depth + 1)),
                5 if next(3) == 0 => body += &format!("(br {}) ", next(depth + 1)),
                6 => {
                    let (one, other) = (next(depth + 1), next(depth + 1));
                    body += &format!("(br_table {one} {other} (local.get 0)) ");
                }
                7 if next(3) == 0 => body += "(return) ",
                _ => {}
            }
        }
        body
    }

    /// For each instruction that opens a block, where it ends; for an `if`, its other half.
    fn pairs(operators: &[Operator<'_>]) -> (Vec<usize>, Vec<Option<usize>>) {
        let (mut ends, mut halves) = (vec![0; operators.len()], vec![None; operators.len()]);
        let mut open = Vec::new();
        for (at, operator) in operators.iter().enumerate() {
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    open.push(at)
                }
                Operator::Else => halves[*open.last().unwrap()] = Some(at),
                Operator::End => {
                    if let Some(begin) = open.pop() {
                        ends[begin] = at;
                    }
                }
                _ => {}
            }
        }
        (ends, halves)
    }

    /// Run it with jumps by chance: instructions and units, which must never be far apart.
    fn run(operators: &[Operator<'_>], locals: usize, next: &mut impl FnMut(u32) -> u32) {
        let plan = charges(operators, locals);
        let edge = 1 + locals / MOVED;
        let (ends, halves) = pairs(operators);
        let mut open: Vec<usize> = Vec::new();
        let (mut at, mut steps, mut units, mut since) = (0, 0, 0, 0);
        // Where a branch leads; out of the function, behind its end.
        let branch = |open: &mut Vec<usize>, depth: u32| {
            let Some(place) = open.len().checked_sub(1 + depth as usize) else {
                return operators.len();
            };
            let begin = open[place];
            if matches!(operators[begin], Operator::Loop { .. }) {
                open.truncate(place + 1);
                begin + 1
            } else {
                open.truncate(place);
                ends[begin] + 1
            }
        };
        while at < operators.len() && steps < 20_000 {
            for (_, taken) in plan.iter().filter(|(before, _)| *before == at) {
                units += taken;
                since = 0;
            }
            let counted = if is_edge(&operators[at]) { edge } else { 1 };
            steps += counted;
            since += counted;
            assert!(since <= REACH + edge, "{since} at {at}");
            at = match &operators[at] {
                Operator::Block { .. } | Operator::Loop { .. } => {
                    open.push(at);
                    at + 1
                }
                Operator::If { .. } if next(2) == 0 => {
                    open.push(at);
                    at + 1
                }
                Operator::If { .. } => match halves[at] {
                    Some(half) => {
                        open.push(at);
                        half + 1
                    }
                    None => ends[at] + 1,
                },
                Operator::Else => ends[open.pop().unwrap()] + 1,
                Operator::End => {
                    open.pop();
                    at + 1
                }
                Operator::BrIf { relative_depth } if next(2) == 0 => {
                    branch(&mut open, *relative_depth)
                }
                Operator::Br { relative_depth } => branch(&mut open, *relative_depth),
                Operator::BrTable { targets } => {
                    let depths: Vec<u32> = targets.targets().map(|each| each.unwrap()).collect();
                    let chosen = next(depths.len() as u32 + 1) as usize;
                    branch(&mut open, *depths.get(chosen).unwrap_or(&targets.default()))
                }
                Operator::Return => operators.len(),
                _ => at + 1,
            };
        }
        let owed = steps as i64 - units * OPERATORS as i64;
        assert!(owed <= (REACH + edge) as i64, "{steps} instructions for {units} units");
        assert!(at < operators.len() || owed <= 0, "{steps} instructions for {units} units");
    }

    #[test]
    fn no_way_runs_far_without_a_charge() {
        let mut seed = 1_u64;
        let mut next = |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % below.max(1)
        };
        for _ in 0..2000 {
            let body = random(&mut next, 0, &mut 40);
            of(&body, |operators| {
                for locals in [1, 1, 1, 1, 1, 100, 1_000, 50_000] {
                    run(operators, locals, &mut next);
                }
            });
        }
    }
}
