import json
import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.windows import LinearNetwork, TensorWindows, make_network, make_windows
from tsar.exceptions import ParameterError, TrainingError
from tsar.training import TrainingOptions, TrainingState, evaluate, make_loss, train

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(max_epochs=4, batch_size=8, learning_rate=0.02)
MSE = make_loss("mse")
