"""How a card becomes a checkpoint: data sets, recipes, training, distillation. Only `recipe` and `plan` are light."""
