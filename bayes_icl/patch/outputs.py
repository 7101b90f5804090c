"""What `patch` leaves: its tables, and the variables of its file."""

from __future__ import annotations

from bayes_icl.core.schemas import INTERVAL, REACHED, Column, Table, columns

TASK = Column("task", "which", "text")
KIND = Column("kind", "kind of ablation: zero, mean or resample", "text")

TRANSFER = Table(
    "transfer",
    "A row for each round, set of heads and layer.",
    (
        TASK,
        Column("round", "round of ablation; 0 without", "count"),
        KIND,
        Column("set", "ablated, placebo 1, ..., or no rule (answers permuted)", "text"),
        Column(
            "layer",
            "layer whose resid_pre is patched; that of the last is resid_post of the last block",
            "count",
            formerly="point",
        ),
        *columns("own other", "log-odds of B's own answer, and of A's, after B", ends=INTERVAL),
        *columns("own_first other_first", "share of pairs in which that token comes first"),
    ),
)

ROUNDS = Table(
    "rounds",
    "A row for each round and kind of ablation. Layers have `_reached` too, the share of bootstrap resamples that get "
    "there.",
    (
        TASK,
        Column("round", "round of ablation; 0 without", "count"),
        KIND,
        Column("set", "ablated or placebo 1, ...", "text"),
        Column("n_heads", "how many heads are ablated", "count"),
        *columns("heads layers_text", "which heads are ablated", "text"),
        *columns(
            "transfer_layer answer_layer",
            "where half of what this A has over B is recovered: of B's own answer, of A's",
            ends=REACHED,
        ),
        Column(
            "transfer_layer_kept", "where half of what A had before anything was ablated is recovered", ends=REACHED
        ),
        Column(
            "rule_layer",
            "the same of what A has over the run with permuted answers, beyond what that run carries",
            ends=REACHED,
        ),
        Column("transfer_until", "the last layer at which half is recovered", ends=REACHED),
        Column("shift", "layers by which transfer_layer is later than without ablation", ends=REACHED),
        Column("peak_layer", "layer at which B's own answer is likeliest", "count", formerly="peak_point"),
        Column("peak_first", "share of pairs in which it comes first there"),
        Column("peak", "its log-odds there", ends=INTERVAL),
        *columns("a_own b_own gain", "log-odds of A and of B; their difference", ends=INTERVAL),
        Column("a_first", "share of pairs in which A's right token comes first after A", optional=True),
        Column("rule_gain", "A's log-odds less those with permuted answers", ends=INTERVAL, formerly="rule"),
        Column("n_pairs", "pairs measured", "count"),
    ),
)

BACKUPS = Table(
    "backups",
    "A row for each head that may take over.",
    (
        TASK,
        Column("round", "which round of ablation", "count"),
        Column("component", "which head", "text"),
        *columns("layer head", "which head", "count"),
        Column("p_holm", "p-value of its growth, corrected over all heads"),
        Column("effect_before", "what its ablation costs before the others are gone", ends=INTERVAL, optional=True),
        Column("effect_after", "what its ablation costs after the others are gone", ends=INTERVAL, optional=True),
        Column("growth", "by how much more"),
        *columns("growth_low growth_high", "by how much more", optional=True),
        Column("direct_rise", "rise of its direct effect", ends=INTERVAL, optional=True),
        Column("attention_rise", "rise of its attention on examples", ends=INTERVAL, optional=True),
        Column("growth_placebo", "growth with placebo sets gone", ends=INTERVAL, optional=True),
        Column("beyond", "growth beyond that", ends=INTERVAL, optional=True),
        Column("growth_other_kind", "growth by the other kind of ablation", ends=INTERVAL, optional=True),
        Column(
            "grows",
            "whether the 95 % intervals of its growth, and of its growth beyond placebo sets, exclude 0",
            "flag",
            optional=True,
        ),
        Column("backup", "whether it grows, and cost less than 5 % of the rule gain before", "flag", optional=True),
        Column("mode", "active or passive", "text"),
        Column("n_seqs", "pairs measured", "count"),
    ),
)

REDUNDANCY = Table(
    "redundancy",
    "A row for each order of ablation and number of heads.",
    (
        TASK,
        Column("order", "best first, random 1, ...", "text"),
        Column("n_heads", "how many heads are ablated", "count"),
        Column("share", "of all heads"),
        Column("log_odds", "A's log-odds", ends=INTERVAL),
    ),
)

HALVES = Table(
    "halves",
    "A row for each order of ablation.",
    (
        TASK,
        Column("order", "best first, or random", "text"),
        Column("share", "share of all heads with which half of the rule gain is gone", ends=INTERVAL),
        Column("n_heads_all", "heads of the model", "count"),
        Column("left_without_heads", "A's log-odds without any head"),
    ),
)

HEADS = Table(
    "heads",
    "A row for each head.",
    (
        TASK,
        Column("component", "which", "text"),
        *columns("layer head", "which", "count"),
        *columns("bring bring_other", "attention from an answer to its own query; to the query before", optional=True),
        *columns(
            "bring_separator bring_separator_other", "the same from what stands between query and answer", optional=True
        ),
        *columns("to_answers to_before to_queries to_sink", "attention from the last position", optional=True),
        *columns("previous_token induction", "on random tokens said twice", optional=True),
        Column("direct", "direct effect", ends=INTERVAL),
        Column("lost", "what its ablation costs", ends=INTERVAL),
        *columns("taken other_heads mlps norm", "that, split into its own and what others change", ends=INTERVAL),
        *columns("lost_zero lost_mean lost_resample", "what it costs by the other kind", ends=INTERVAL, optional=True),
        Column("round", "the round in which it is first ablated"),
    ),
)

MLPS = Table(
    "mlps",
    "A row for each layer, place and readout.",
    (
        TASK,
        Column("layer", "of the MLP", "count"),
        Column("place", "answers, others or last", "text"),
        Column("readout", "complement, format, rule or parity", "text"),
        KIND,
        Column("lost", "what its ablation costs", ends=INTERVAL),
    ),
)

STEPS = Table(
    "steps",
    "A row for each experiment on the three steps.",
    (
        TASK,
        Column("verdict", "on the step", "text"),
        *columns("n_controls n_as_much", "controls, and those that lose as much", "count", optional=True),
        Column("step", "1 to 3", "count"),
        Column("what", "the experiment", "text"),
        Column("decides", "path (every way), detour (another one), heads, or nothing", "text"),
        Column("kind", "what is done: attention knockout, or the kind of ablation", "text"),
        Column("share", "what is lost, as a share of the rule gain", ends=INTERVAL),
        Column("beyond", "that, less the largest of its controls", ends=INTERVAL, optional=True),
        Column("heads", "those ablated", "text", optional=True),
    ),
)

LADDER = Table(
    "ladder",
    "With `--ladder`: a row for each kind of ablation, step and set of heads.",
    (
        TASK,
        KIND,
        Column("step", "step of the ladder; 0 without ablation", "count"),
        Column("set", "ablated or placebo 1, ...", "text"),
        Column("n_heads", "how many heads are ablated", "count"),
        Column("layers_text", "which layers are gone", "text"),
        *columns("transfer_layer answer_layer", "as in rounds", ends=REACHED),
        Column("a_own", "A's log-odds", ends=INTERVAL),
        Column("a_first", "share of pairs in which A's right token comes first after A"),
        Column("rule_gain", "A's log-odds less those without the rule", ends=INTERVAL),
        Column("left", "share of the rule gain that is left"),
        *columns(
            "own_first copied_first",
            "largest share of pairs, over layers, in which B's own answer comes first after B; A's, copied",
        ),
    ),
)

LADDER_TRANSFER = Table(
    "ladder_transfer",
    "With `--ladder`: a row for each kind of ablation, step and layer.",
    (
        TASK,
        KIND,
        Column("step", "step of the ladder", "count"),
        Column("layer", "layer whose resid_pre is patched", "count"),
        *columns("own other", "log-odds of B's own answer, and of A's, after B", ends=INTERVAL),
        *columns("own_first other_first", "share of pairs in which that token comes first"),
    ),
)

LADDER_HEADS = Table(
    "ladder_heads",
    "With `--ladder`: a row for each kind of ablation, step and head; at the last position.",
    (
        TASK,
        KIND,
        Column("step", "step of the ladder", "count"),
        Column("component", "which head", "text"),
        *columns("layer head", "which head", "count"),
        *columns("direct_before direct_after", "direct effect before ablation and after"),
        *columns("norm_before norm_after", "norm of what it writes"),
        *columns("attention_before attention_after", "attention on examples"),
        *columns("to_answers_before to_answers_after", "attention on their answers"),
        Column("direct_rise", "rise of the direct effect", ends=INTERVAL),
        Column("attention_rise", "rise of the attention on examples", ends=INTERVAL),
        Column("p_holm", "the smaller p-value of the two rises, corrected over both and all heads"),
        Column("gone", "whether it is ablated", "flag"),
        Column(
            "lights",
            "whether its direct effect surely rises, by 5 % of the rule gain, or its attention, by 0.1",
            "flag",
        ),
    ),
)

LADDER_PATTERNS = Table(
    "ladder_patterns",
    "With `--ladder`: a row for each head whose direct effect rises most, example and role; attention from the last "
    "position, mean over pairs.",
    (
        TASK,
        KIND,
        Column("step", "step of the ladder", "count"),
        Column("component", "which head", "text"),
        Column("shot", "example attended to, from 0", "count"),
        Column("role", "query, separator or answer", "text"),
        *columns("attention_before attention_after", "attention before ablation and after"),
    ),
)

FEATURES = Table(
    "features",
    "With `--ladder`: a row for each run, class of answers and layer, read by a logit lens.",
    (
        TASK,
        Column("run", "A, no rule (answers permuted), or their difference", "text"),
        Column("readout", "complement, format (of the form: a number, a label), parity, rule or foil", "text"),
        Column("layer", "whose resid_pre is read; that of the last is resid_post of the last block", "count"),
        Column("log_odds", "of the class of the right answer", ends=INTERVAL),
    ),
)

TABLES = {
    table.name: table
    for table in (
        *(TRANSFER, ROUNDS, BACKUPS, REDUNDANCY, HALVES, HEADS, MLPS, STEPS),
        *(LADDER, LADDER_TRANSFER, LADDER_HEADS, LADDER_PATTERNS, FEATURES),
    )
}

DESCRIBED = {
    "transfer_own": "log-odds of the right answer to B's own query, A's residual stream being put into B at each layer",
    "transfer_other": "log-odds of A's answer after B, likewise",
    "log_odds_a": "A's own log-odds",
    "log_odds_b": "log-odds of B's right answer without a patch",
    "lost_alone": "what the log-odds lose when one head is ablated",
}
