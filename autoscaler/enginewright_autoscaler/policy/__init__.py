"""The pure policy: `decide(observation, state, config, now) -> (Decision, State)`."""

from enginewright_autoscaler.policy.config import Config, Tuning, config_of
from enginewright_autoscaler.policy.decide import decide
from enginewright_autoscaler.policy.decision import Decision, Numbers, Reason, State
from enginewright_autoscaler.policy.observation import Distribution, Figure, Observation, Pending

__all__ = [
    "decide",
    "Observation",
    "Figure",
    "Distribution",
    "Pending",
    "Config",
    "Tuning",
    "config_of",
    "Decision",
    "Numbers",
    "Reason",
    "State",
]
