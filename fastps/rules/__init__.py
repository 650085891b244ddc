"""Update rules, one per file."""

from fastps.rules.adadelta import Adadelta
from fastps.rules.adagrad import Adagrad
from fastps.rules.adam import Adam
from fastps.rules.adamax import Adamax
from fastps.rules.adamw import AdamW
from fastps.rules.add import Add
from fastps.rules.amsgrad import AMSGrad
from fastps.rules.base import Rule, RuleFamily, rule
from fastps.rules.dcasgd import DCASGD
from fastps.rules.ftrl import FTRL
from fastps.rules.lion import Lion
from fastps.rules.nadam import NAdam
from fastps.rules.proximal_sgd import ProximalSGD
from fastps.rules.rmsprop import RMSprop
from fastps.rules.row_adagrad import RowAdagrad
from fastps.rules.sgd import SGD

__all__ = [
    "DCASGD",
    "FTRL",
    "SGD",
    "AMSGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Add",
    "Lion",
    "NAdam",
    "ProximalSGD",
    "RMSprop",
    "RowAdagrad",
    "Rule",
    "RuleFamily",
    "rule",
]
