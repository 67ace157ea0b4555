"""Interprets pickles without creating the objects that they describe.

A pickle is a program for a stack machine. `pickletools.genops` decodes its
instructions. This module executes the instructions that `torch.save` writes and
refuses all others:

- Strings, numbers, tuples and lists are created as usual.
- A dictionary becomes a `Dictionary`, which is a list of pairs. Its keys are
  not hashed, because hashing a few nested tuples can take 2**60 steps.
- A class or a function becomes a `Global`, which is its name. Nothing is
  imported.
- An object becomes an `Opaque`, which is the name of its class. Nothing is
  called.

So code from a file cannot run, and the memory used is limited by the file size.
"""

import pickletools
from typing import NamedTuple

from keras_mixer.weights.errors import WeightsError


class Global(str):
    """The name of a class or of a function."""


class Opaque(NamedTuple):
    """Stands for an object that was not created."""

    name: str  # of its class, or of the function that would create it


class Dictionary(list):
    """A dictionary or an `OrderedDict`, as `(key, value)` pairs."""

    __slots__ = ()

    def by_name(self):
        """Returns `{key: value}` for the keys that are strings.

        Raises:
            WeightsError: If a string occurs twice.
        """
        named = {}
        for key, value in self:
            if type(key) is str:
                if key in named:
                    raise WeightsError(f"it contains {key!r} twice")
                named[key] = value
        return named


# Types that checkpoints contain beside the weights. They are plain data and
# become an `Opaque`.
INERT = frozenset(
    f"{module}.{name}"
    for module, names in {
        "_codecs": "encode",  # protocol 2 stores bytes with it
        "argparse": "Namespace",
        "builtins": "bytearray bytes complex frozenset range set slice",
        "collections": "Counter OrderedDict defaultdict deque",
        "datetime": "date datetime time timedelta timezone",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "omegaconf.base": "ContainerMetadata Metadata",
        "omegaconf.dictconfig": "DictConfig",
        "omegaconf.listconfig": "ListConfig",
        "omegaconf.nodes": (
            "AnyNode BooleanNode BytesNode FloatNode IntegerNode PathNode "
            "StringNode"
        ),
        "lightning.fabric.utilities.data": "AttributeDict",
        "lightning_fabric.utilities.data": "AttributeDict",
        "pytorch_lightning.utilities.parsing": "AttributeDict",
        "pathlib": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
        "pathlib._local": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
        "torch": "Size device",
        "torch.serialization": "_get_layout",
        "torch.torch_version": "TorchVersion",
        "torch._tensor": "_rebuild_from_type_v2",
        "torch._utils": (
            "_rebuild_meta_tensor_no_storage _rebuild_qtensor "
            "_rebuild_sparse_tensor _rebuild_tensor_v3"
        ),
        "types": "SimpleNamespace",
        "yacs.config": "CfgNode",
    }.items()
    for name in names.split()
)


class Follower:
    """Interprets pickles.

    Args:
        functions: `{name: function}`, the functions to call instead of those
            that a pickle names.
        load: Function that is called with each persistent id of a pickle. In
            files of PyTorch, this is the description of a storage.
    """

    def __init__(self, functions, load):
        self.unknown = {}  # names not in `functions` or `INERT`
        self._functions = {"collections.OrderedDict": _ordered, **functions}
        self._load = load

    def follow(self, file):
        """Returns the object of the pickle at the position of `file`.

        Afterwards the position of `file` is the end of the pickle.

        Raises:
            WeightsError: If the pickle uses an instruction that `torch.save`
                does not write. Any other exception means that the pickle is
                damaged.
        """
        self._stack, self._outer_stacks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in _ARGUMENTS:
                self._stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise WeightsError(
                    f"its pickle has the instruction {opcode.name}, which "
                    "`torch.save` does not write. Save it again with the "
                    "default `pickle_protocol`"
                )
        return self._stack.pop()

    def _nothing(self, _):
        pass

    def _mark(self, _):
        self._outer_stacks.append(self._stack)
        self._stack = []

    def _pop_mark(self):
        items = self._stack
        self._stack = self._outer_stacks.pop()
        return items

    def _pop(self, count):
        items = [self._stack.pop() for _ in range(count)]
        return items[::-1]

    def _put(self, index):
        self._memo[index] = self._stack[-1]

    def _get(self, index):
        self._stack.append(self._memo[index])

    def _empty_list(self, _):
        self._stack.append([])

    def _empty_dict(self, _):
        self._stack.append(Dictionary())

    def _tuple(self, _):
        items = self._pop_mark()  # replaces `self._stack`
        self._stack.append(tuple(items))

    def _tuple_1(self, _):
        self._stack.append(tuple(self._pop(1)))

    def _tuple_2(self, _):
        self._stack.append(tuple(self._pop(2)))

    def _tuple_3(self, _):
        self._stack.append(tuple(self._pop(3)))

    def _append(self, _):
        self._extend(self._pop(1))

    def _appends(self, _):
        self._extend(self._pop_mark())

    def _extend(self, items):
        if type(self._stack[-1]) is list:
            self._stack[-1].extend(items)
        else:
            self._expect(Opaque)

    def _set_item(self, _):
        self._update(self._pop(2))

    def _set_items(self, _):
        self._update(self._pop_mark())

    def _update(self, items):
        self._expect(Dictionary, Opaque)
        if type(self._stack[-1]) is Dictionary:
            pairs = zip(items[::2], items[1::2], strict=True)
            self._stack[-1].extend(pairs)

    def _global(self, argument):
        module, _, name = argument.partition(" ")
        # Protocol 2 uses the name from Python 2.
        module = "builtins" if module == "__builtin__" else module
        self._stack.append(Global(f"{module}.{name}"))

    def _persistent(self, _):
        self._stack.append(self._load(self._stack.pop()))

    def _call(self, _):
        name, arguments = self._pop(2)
        if type(name) is not Global or type(arguments) is not tuple:
            raise WeightsError("it calls something that is not a function")
        if name in self._functions:
            self._stack.append(self._functions[name](*arguments))
            return
        if name not in INERT:
            self.unknown[name] = None
        self._stack.append(Opaque(str(name)))

    def _build(self, _):
        self._stack.pop()  # the state of the object
        self._expect(Dictionary, Opaque)

    def _expect(self, *types):
        if type(self._stack[-1]) not in types:
            raise WeightsError("it changes something that is not an object")


def _ordered(*arguments):
    return Opaque("collections.OrderedDict") if arguments else Dictionary()


# Instructions that push their argument.
_ARGUMENTS = {
    "BINBYTES",
    "BINFLOAT",
    "BININT",
    "BININT1",
    "BININT2",
    "BINSTRING",
    "BINUNICODE",
    "LONG1",
    "SHORT_BINBYTES",
    "SHORT_BINSTRING",
}
_CONSTANTS = {
    "EMPTY_TUPLE": (),
    "NEWFALSE": False,
    "NEWTRUE": True,
    "NONE": None,
}
_STEPS = {
    "APPEND": Follower._append,
    "APPENDS": Follower._appends,
    "BINGET": Follower._get,
    "BINPERSID": Follower._persistent,
    "BINPUT": Follower._put,
    "BUILD": Follower._build,
    "EMPTY_DICT": Follower._empty_dict,
    "EMPTY_LIST": Follower._empty_list,
    "GLOBAL": Follower._global,
    "LONG_BINGET": Follower._get,
    "LONG_BINPUT": Follower._put,
    "MARK": Follower._mark,
    "NEWOBJ": Follower._call,
    "PROTO": Follower._nothing,
    "REDUCE": Follower._call,
    "SETITEM": Follower._set_item,
    "SETITEMS": Follower._set_items,
    "STOP": Follower._nothing,
    "TUPLE": Follower._tuple,
    "TUPLE1": Follower._tuple_1,
    "TUPLE2": Follower._tuple_2,
    "TUPLE3": Follower._tuple_3,
}
