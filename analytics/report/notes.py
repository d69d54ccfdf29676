"""The parts of a report that are the same every time: how its figures are made, and what its words mean."""

from __future__ import annotations

METHOD = (
    "Percentiles are read from counts of every message, not from a sample; a value is at most 0.4 % wrong by the"
    " resolution of the counts. Where there are too few messages for a percentile it is refused, not guessed.",
    "A change against the period before has an interval for which whole days (hours, of less than a week) of both"
    " periods are drawn again 400 times. It is called slower or faster only where the interval leaves out zero. Of"
    " twenty such statements about figures that did not change, one is expected to be wrong.",
    "What latency does to a business measure is estimated by the best design that the data allow: an experiment, where"
    " chance decided who was served later; else a comparison of what is alike in customer segment, hour and load. Only"
    " the first is proof. The naive slope mixes latency with everything that comes with it, such as busy hours, and"
    " never becomes money.",
    "A period's cost is the effect per millisecond times the change of mean latency. Its interval is of the effect; the"
    " means are taken as known.",
    "Budget burned is the share of the whole budget of the objective's period that this report's period took.",
    "Values of investments discount the future, draw what is uncertain 20,000 times, and count no effect beyond the"
    " latencies over which it was measured.",
)

GLOSSARY = (
    ("latency", "How long one message takes, from the event that causes it to the last result."),
    ("path", "One kind of message and the stages it goes through, for example an order from quote to report."),
    ("p50, p99, p99.9", "Half, 99 of 100, 999 of 1,000 messages take at most this long. The rest take longer."),
    ("95 % interval", "Made so that in 19 of 20 cases it holds the true value. A wide one means: not known well."),
    ("no clear change", "The interval of the change holds zero: what is seen may be chance."),
    ("unfinished", "A message that never reached its end. It has no latency and is counted beside the others."),
    ("completeness", "The share of what programs produced that arrived and was counted."),
    ("objective, error budget", "What share of events has to be good over a time; what may be bad is the budget."),
    ("burned", "The share of an error budget that is used up. Above 100 % the objective is missed."),
    ("breach, detection, recovery", "An objective burns too fast; from then to the alert; from then to its end."),
    ("exposed revenue", "Revenue at the mean rate for as long as a breach lasted. It was at risk, not lost."),
    ("gap", "Messages of a market data feed that were missing; recovery is how late they came after all."),
    (
        "effect, association",
        "An experiment shows an effect. An association goes along and may have another cause.",
    ),
    ("no detectable effect", "An effect may be there but is smaller than what these data could show."),
    ("response curve", "The business measure at each latency, among what is otherwise alike, with its band."),
    ("cohort", "A group of customers that is looked at by itself."),
    ("net present value (NPV)", "What an investment brings less what it takes, in money of today."),
    ("gate", "How many times what it takes an investment has to bring before it is funded."),
)
