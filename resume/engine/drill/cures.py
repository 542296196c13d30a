"""What to do about each part that can break continuity: one or two sentences each."""

CURES = {
    "data order": (
        "Give data.train a function that takes `epoch` (and `seed`) and returns that epoch's data in an order that "
        "depends on them alone: resuming then skips to its batch."
    ),
    "unseeded shuffle": (
        "Seed the shuffle from the arguments: take `epoch` and `seed`, and use np.random.default_rng((seed, epoch)), "
        "or Dataset.shuffle(n, seed=seed + epoch)."
    ),
    "unseeded randomness in the data": (
        "Draw from np.random.default_rng((seed, epoch)) or tf.random.stateless_*, never from a fresh generator without "
        "a seed, the clock or os.urandom."
    ),
    "order by hash or listing": (
        "The order of a set, of hash() or of a directory listing changes from one process to the next: sort it, then "
        "shuffle with a seed."
    ),
    "global random numbers in the data": (
        "Data that draws from Python's or NumPy's global generator while it is read finds it elsewhere after a resume. "
        "Make a generator of its own in the function, random.Random(f'{seed} {epoch}'), or draw before reading begins."
    ),
    "data with hidden state": (
        "Make a batch a function of (seed, epoch, index): draw from np.random.default_rng((seed, epoch, index)), and "
        "count nothing from one batch to the next."
    ),
    "layer with hidden state": (
        "Keep the layer's state in a variable: self.add_weight(..., trainable=False) or keras.random.SeedGenerator. "
        "A Python attribute is in no checkpoint, and inside a compiled step it is frozen at its first value."
    ),
    "stateful random operation in a layer": (
        "Use keras.random.* with a keras.random.SeedGenerator made in __init__, or tf.random.Generator: their state is "
        "a variable. The counter inside tf.random.uniform and its like cannot be read."
    ),
    "unseeded randomness in a layer": (
        "Draw in the graph with keras.random.* and a keras.random.SeedGenerator made in __init__, not with a fresh "
        "generator, the clock or NumPy."
    ),
    "unseeded randomness in the loss": (
        "Draw with keras.random.* and a keras.random.SeedGenerator kept by a layer or by the model, or not at all."
    ),
    "unseeded randomness in a metric": "A metric must be a function of what it is given: draw nothing in it.",
    "non-deterministic operation": (
        "Something in the step gives other bits for the same input: tf.py_function with threads or a clock, an "
        "operation without a deterministic kernel. Replace it; no checkpoint can make it repeat."
    ),
    "loss with hidden state": (
        "A loss must be a function of labels and output. Keep a counter or a moving weight in a variable of the model "
        "(add_weight, trainable=False), or derive it from model.optimizer.iterations."
    ),
    "schedule with hidden state": (
        "A LearningRateSchedule must be a function of the step it is called with; count nothing in it."
    ),
    "optimizer rebuilt by compile()": (
        "model.compile() makes a new optimizer: iterations 0, no slots. Compile once, in the model's function or by "
        "the configuration; to change a rate assign optimizer.learning_rate; to unfreeze layers begin another run from "
        "this one's checkpoint."
    ),
    "loss scale reset": (
        "Set the loss scale where the optimizer is made (LossScaleOptimizer(initial_scale=...)), not while training: "
        "a resumed run has its own already."
    ),
    "optimizer with hidden state": (
        "Keep what the optimizer remembers in variables (add_variable, add_variable_from_reference): Python attributes "
        "are in no checkpoint."
    ),
    "metric with hidden state": (
        "Keep the metric's state in variables (self.add_variable in __init__), written in update_state and set back in "
        "reset_state."
    ),
    "callback with hidden state": (
        "Keep the callback's state in attributes of plain data set in __init__, or give it get_state and set_state. "
        "Module globals, closures, iterators and generators are in no checkpoint."
    ),
    "validation data with hidden state": (
        "Give data.validation the same batches at every call: no generator that goes on from one validation to the "
        "next, or a function that takes `epoch`."
    ),
    "data ends early": (
        "Return data that can be read again in each epoch: an iterator or an open file is empty after the first. A "
        "function that takes `epoch` and opens it anew does."
    ),
    "wrong steps_per_epoch": (
        "fit.steps_per_epoch asks for more batches than an epoch of data.train has. Set its true value, or leave it "
        "out."
    ),
    "random generators": (
        "Python's or NumPy's global generator ends elsewhere, though nothing else differs: something draws from it in "
        "another thread or at another moment. Give that a generator of its own."
    ),
    "restore refused": (
        "What an attempt builds is not what the checkpoint holds. Build the same model, optimizer and callbacks from "
        "the configuration in every attempt."
    ),
    "logs": (
        "Write logs through callbacks that append from the step they are given, and keep no position of their own."
    ),
    "something unseen": (
        "The ends differ, and no step's batch, output, loss, update or log does: look at what the callbacks write."
    ),
}
