/* The compiled writer: the same records as pure.py, byte for byte, for the same calls.
 *
 * The plain cases run here; everything else (a thread's first call, a point given by name, a label mapping, a value
 * that does not fit) goes to the same Python functions that the pure writer uses. Nothing on the hot path allocates
 * Python objects, so neither a signal handler nor the garbage collector can run in the middle of a record.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if PY_BIG_ENDIAN
#error "the ring is little-endian; the pure Python writer serves this machine"
#endif

#define SLOT_BYTES 64
#define NO_AGE (-1)
#define NO_ERROR 0xFFFFFFFFu
#define NO_DEPTH INT32_MIN

typedef struct {
    uint64_t begin;
    int64_t time_ns;
    uint64_t id;
    int64_t value;
    uint32_t error_ns;
    int32_t depth;
    uint16_t point, space, clock;
    uint8_t outcome, mode, cache, flags;
    uint16_t reserved;
    uint32_t labels;
    uint64_t end;
} Slot;
_Static_assert(sizeof(Slot) == SLOT_BYTES, "slot layout, version 1");

/* ---- XXH64, seed 0: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md ---- */

static const uint64_t P1 = 0x9E3779B185EBCA87ULL, P2 = 0xC2B2AE3D27D4EB4FULL, P3 = 0x165667B19E3779F9ULL,
                      P4 = 0x85EBCA77C2B2AE63ULL, P5 = 0x27D4EB2F165667C5ULL;

static inline uint64_t rotl(uint64_t x, int r) { return (x << r) | (x >> (64 - r)); }
static inline uint64_t read64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint64_t read32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t lane(uint64_t acc, uint64_t word) { return rotl(acc + word * P2, 31) * P1; }

static uint64_t xxh64(const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    uint64_t acc;
    if (n >= 32) {
        uint64_t v[4] = {P1 + P2, P2, 0, 0 - P1};
        for (; end - p >= 32; p += 32)
            for (int i = 0; i < 4; i++)
                v[i] = lane(v[i], read64(p + 8 * i));
        acc = rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18);
        for (int i = 0; i < 4; i++)
            acc = (acc ^ lane(0, v[i])) * P1 + P4;
    } else {
        acc = P5;
    }
    acc += n;
    for (; end - p >= 8; p += 8)
        acc = rotl(acc ^ lane(0, read64(p)), 27) * P1 + P4;
    if (end - p >= 4) {
        acc = rotl(acc ^ (read32(p) * P1), 23) * P2 + P3;
        p += 4;
    }
    for (; p < end; p++)
        acc = rotl(acc ^ (*p * P5), 11) * P1;
    acc = (acc ^ (acc >> 33)) * P2;
    acc = (acc ^ (acc >> 29)) * P3;
    return acc ^ (acc >> 32);
}

static PyObject *core_xxh64(PyObject *Py_UNUSED(module), PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uint64_t hash = xxh64(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(hash);
}

/* ---- Ring ---- */

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    Slot *slots;
    uint64_t mask;
    uint64_t written;
} Ring;

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* begin, then the fields, then end with release order: a reader that sees end sees the fields. */
static inline void commit(Ring *ring, const Slot *record)
{
    uint64_t word = ++ring->written;
    Slot *slot = &ring->slots[(word - 1) & ring->mask];
    __atomic_store_n(&slot->begin, word, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)slot + 8, (const char *)record + 8, SLOT_BYTES - 16);
    __atomic_store_n(&slot->end, word, __ATOMIC_RELEASE);
}

static int ring_init(Ring *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *buffer;
    if (!PyArg_ParseTuple(args, "O", &buffer))
        return -1;
    if (self->view.obj) {
        PyErr_SetString(PyExc_TypeError, "a ring is made once");
        return -1;
    }
    if (PyObject_GetBuffer(buffer, &self->view, PyBUF_WRITABLE) < 0)
        return -1;
    uint64_t capacity = (uint64_t)self->view.len / SLOT_BYTES;
    if (capacity == 0 || (capacity & (capacity - 1)) || ((uintptr_t)self->view.buf & 7)) {
        PyBuffer_Release(&self->view);
        PyErr_SetString(PyExc_ValueError, "a ring needs an aligned buffer of a power of two slots");
        return -1;
    }
    self->slots = self->view.buf;
    self->mask = capacity - 1;
    return 0;
}

static void ring_dealloc(Ring *self)
{
    if (self->view.obj)
        PyBuffer_Release(&self->view);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int as_unsigned(PyObject *object, uint64_t most, uint64_t *out)
{
    uint64_t value = PyLong_AsUnsignedLongLong(object);
    if (value == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    if (value > most) {
        PyErr_SetString(PyExc_OverflowError, "value does not fit its field");
        return -1;
    }
    *out = value;
    return 0;
}

/* put(time_ns | None, id, value, error_ns, depth, point, space, clock, outcome, mode, cache, flags, labels) */
static PyObject *ring_put(Ring *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t f[13] = {0};
    static const uint64_t most[13] = {0, UINT64_MAX, 0, UINT32_MAX, 0, 0xFFFF, 0xFFFF, 0xFFFF, 255, 255, 255, 255,
                                      UINT32_MAX};
    if (nargs != 13) {
        PyErr_SetString(PyExc_TypeError, "put takes 13 fields");
        return NULL;
    }
    if (!self->slots) {
        PyErr_SetString(PyExc_TypeError, "this ring has no slots");
        return NULL;
    }
    for (int i = 0; i < 13; i++) {
        if (i == 0 || i == 2 || i == 4)
            continue;
        if (as_unsigned(args[i], most[i], &f[i]) < 0)
            return NULL;
    }
    Slot r = {0};
    r.id = f[1];
    r.value = PyLong_AsLongLong(args[2]);
    if (r.value == -1 && PyErr_Occurred()) {
        PyErr_Clear(); /* a parent's id above 2^63 */
        r.value = (int64_t)PyLong_AsUnsignedLongLong(args[2]);
        if (PyErr_Occurred())
            return NULL;
    }
    long long depth = PyLong_AsLongLong(args[4]);
    if (depth == -1 && PyErr_Occurred())
        return NULL;
    if (depth < INT32_MIN || depth > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "depth does not fit 32 bits");
        return NULL;
    }
    if (args[0] != Py_None) {
        r.time_ns = PyLong_AsLongLong(args[0]);
        if (r.time_ns == -1 && PyErr_Occurred())
            return NULL;
    } else {
        r.time_ns = now_ns();
    }
    r.error_ns = (uint32_t)f[3];
    r.depth = (int32_t)depth;
    r.point = (uint16_t)f[5];
    r.space = (uint16_t)f[6];
    r.clock = (uint16_t)f[7];
    r.outcome = (uint8_t)f[8];
    r.mode = (uint8_t)f[9];
    r.cache = (uint8_t)f[10];
    r.flags = (uint8_t)f[11];
    r.labels = (uint32_t)f[12];
    commit(self, &r);
    Py_RETURN_NONE;
}

static PyObject *ring_written(Ring *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(self->written);
}

static PyMethodDef ring_methods[] = {
    {"put", (PyCFunction)(void (*)(void))ring_put, METH_FASTCALL, "Write one record of normalised fields."},
    {"written", (PyCFunction)ring_written, METH_NOARGS, "How many records were begun."},
    {NULL},
};

static PyTypeObject RingType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailsight_probe._core.Ring",
    .tp_basicsize = sizeof(Ring),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Slots and their sequence.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)ring_init,
    .tp_dealloc = (destructor)ring_dealloc,
    .tp_methods = ring_methods,
};

/* ---- Point ---- */

typedef struct {
    PyObject_HEAD
    PyObject *name, *space, *prefix; /* str, str, bytes */
    int code, space_code;
} Point;

static int point_init(Point *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *name, *space, *prefix;
    int code, space_code;
    if (!PyArg_ParseTuple(args, "UUiiS", &name, &space, &code, &space_code, &prefix))
        return -1;
    if (code < 0 || code > 0xFFFF || space_code < 0 || space_code > 0xFFFF) {
        PyErr_SetString(PyExc_ValueError, "codes are 16 bits");
        return -1;
    }
    self->code = code;
    self->space_code = space_code;
    Py_INCREF(name);
    Py_XSETREF(self->name, name);
    Py_INCREF(space);
    Py_XSETREF(self->space, space);
    Py_INCREF(prefix);
    Py_XSETREF(self->prefix, prefix);
    return 0;
}

static void point_dealloc(Point *self)
{
    Py_XDECREF(self->name);
    Py_XDECREF(self->space);
    Py_XDECREF(self->prefix);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *point_repr(Point *self) { return PyUnicode_FromFormat("Point(%R, space=%R)", self->name, self->space); }

#include <structmember.h>
static PyMemberDef point_members[] = {
    {"name", T_OBJECT_EX, offsetof(Point, name), READONLY, "the point's name"},
    {"space", T_OBJECT_EX, offsetof(Point, space), READONLY, "its key space"},
    {"prefix", T_OBJECT_EX, offsetof(Point, prefix), READONLY, "what is hashed before an identifier"},
    {"code", T_INT, offsetof(Point, code), READONLY, "dictionary code, 0 = not registered"},
    {"space_code", T_INT, offsetof(Point, space_code), READONLY, "dictionary code of the key space"},
    {NULL},
};

static PyTypeObject PointType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailsight_probe._core.Point",
    .tp_basicsize = sizeof(Point),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A handle: the codes of a point and of its key space.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)point_init,
    .tp_dealloc = (destructor)point_dealloc,
    .tp_repr = (reprfunc)point_repr,
    .tp_members = point_members,
};

/* ---- Writer ---- */

typedef struct {
    PyObject_HEAD
    PyObject *slow_stamp, *slow_link, *spaces;
    uint64_t generation; /* threads hold rings of one generation; forget() starts the next */
    int on;
} Writer;

static uint64_t generations = 0;
/* The calling thread's ring. The Python side keeps the object alive as long as its generation lasts. */
static __thread uint64_t held_generation = 0;
static __thread Ring *held_ring = NULL;

static int writer_init(Writer *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *slow_stamp, *slow_link, *spaces;
    if (!PyArg_ParseTuple(args, "OOO!", &slow_stamp, &slow_link, &PyDict_Type, &spaces))
        return -1;
    Py_INCREF(slow_stamp);
    Py_XSETREF(self->slow_stamp, slow_stamp);
    Py_INCREF(slow_link);
    Py_XSETREF(self->slow_link, slow_link);
    Py_INCREF(spaces);
    Py_XSETREF(self->spaces, spaces);
    self->generation = ++generations;
    self->on = 1;
    return 0;
}

static int writer_traverse(Writer *self, visitproc visit, void *arg)
{
    Py_VISIT(self->slow_stamp);
    Py_VISIT(self->slow_link);
    Py_VISIT(self->spaces);
    return 0;
}

static int writer_clear(Writer *self)
{
    Py_CLEAR(self->slow_stamp);
    Py_CLEAR(self->slow_link);
    Py_CLEAR(self->spaces);
    return 0;
}

static void writer_dealloc(Writer *self)
{
    PyObject_GC_UnTrack(self);
    writer_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* Names of stamp's optional arguments, interned, in the order of its signature. */
enum { DEPTH, OUTCOME, MODE, CACHE, AGE, LABELS, OPTIONS };
static const char *option_texts[OPTIONS] = {"depth", "outcome", "mode", "cache", "data_age_ns", "labels"};
static PyObject *option_names[OPTIONS];
static PyObject *text_order, *text_parent_space, *text_child_space;

/* 1: a plain integer in range, 0: anything else (the Python side decides). Never leaves an exception. */
static inline int plain_int(PyObject *object, long long least, long long most, long long *out)
{
    int overflow;
    if (!PyLong_Check(object))
        return 0;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow || value < least || value > most)
        return 0;
    *out = value;
    return 1;
}

static inline int plain_key(PyObject *object, uint64_t *out)
{
    if (!PyLong_CheckExact(object))
        return 0;
    uint64_t value = PyLong_AsUnsignedLongLong(object);
    if (value == (uint64_t)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    *out = value;
    return 1;
}

/* The key of bytes or text: XXH64 over the key space's prefix and the identifier. */
static int hashed_key(PyObject *object, Point *point, uint64_t *out)
{
    const char *data;
    Py_ssize_t n;
    uint8_t joined[512];
    if (PyUnicode_CheckExact(object)) {
        data = PyUnicode_AsUTF8AndSize(object, &n);
        if (!data) {
            PyErr_Clear();
            return 0;
        }
    } else if (PyBytes_CheckExact(object)) {
        data = PyBytes_AS_STRING(object);
        n = PyBytes_GET_SIZE(object);
    } else {
        return 0;
    }
    Py_ssize_t before = PyBytes_GET_SIZE(point->prefix);
    if (before + n > (Py_ssize_t)sizeof(joined))
        return 0; /* rare and slow anyway: the Python side hashes it */
    memcpy(joined, PyBytes_AS_STRING(point->prefix), (size_t)before);
    memcpy(joined + before, data, (size_t)n);
    *out = xxh64(joined, (size_t)(before + n));
    return 1;
}

static PyObject *writer_stamp(Writer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (!self->on)
        Py_RETURN_NONE;
    PyObject *options[OPTIONS] = {NULL};
    Slot r;
    long long value;
    if (nargs < 2 || nargs > 2 + OPTIONS || held_generation != self->generation)
        goto slow;
    for (Py_ssize_t i = 2; i < nargs; i++)
        options[i - 2] = args[i];
    if (kwnames) {
        Py_ssize_t n = PyTuple_GET_SIZE(kwnames);
        for (Py_ssize_t k = 0; k < n; k++) {
            PyObject *name = PyTuple_GET_ITEM(kwnames, k);
            int i = 0;
            while (i < OPTIONS && option_names[i] != name)
                i++;
            if (i == OPTIONS || options[i])
                goto slow; /* not interned, unknown or given twice: Python's own call says which */
            options[i] = args[nargs + k];
        }
    }
    if (!Py_IS_TYPE(args[0], &PointType))
        goto slow;
    Point *point = (Point *)args[0];
    if (!point->code)
        goto slow;
    memset(&r, 0, sizeof(r));
    r.space = (uint16_t)point->space_code;
    if (!plain_key(args[1], &r.id)) {
        if (!hashed_key(args[1], point, &r.id))
            goto slow;
        r.space = 0;
    }
    r.point = (uint16_t)point->code;
    r.value = NO_AGE;
    r.error_ns = NO_ERROR;
    r.depth = NO_DEPTH;
#define OPTION(index, least, most, target)                                                                            \
    if (options[index] && options[index] != Py_None) {                                                                \
        if (!plain_int(options[index], least, most, &value))                                                          \
            goto slow;                                                                                                \
        target = value;                                                                                               \
    }
    OPTION(DEPTH, INT32_MIN, INT32_MAX, r.depth)
    OPTION(OUTCOME, 0, 255, r.outcome)
    OPTION(MODE, 0, 255, r.mode)
    OPTION(CACHE, 0, 255, r.cache)
    OPTION(AGE, INT64_MIN, INT64_MAX, r.value)
    OPTION(LABELS, 0, UINT32_MAX, r.labels)
#undef OPTION
    r.time_ns = now_ns();
    commit(held_ring, &r);
    Py_RETURN_NONE;
slow:
    return PyObject_Vectorcall(self->slow_stamp, args, (size_t)nargs, kwnames);
}

static int space_code(Writer *self, PyObject *space, uint16_t *out)
{
    long long code;
    if (!PyUnicode_CheckExact(space))
        return 0;
    PyObject *found = PyDict_GetItemWithError(self->spaces, space);
    if (!found) {
        PyErr_Clear();
        return 0;
    }
    if (!plain_int(found, 1, 0xFFFF, &code))
        return 0;
    *out = (uint16_t)code;
    return 1;
}

static PyObject *writer_link(Writer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (!self->on)
        Py_RETURN_NONE;
    PyObject *from = text_order, *to = text_order;
    Slot r;
    uint64_t parent;
    if (nargs < 2 || nargs > 4 || held_generation != self->generation)
        goto slow;
    if (nargs > 2)
        from = args[2];
    if (nargs > 3)
        to = args[3];
    if (kwnames) {
        Py_ssize_t n = PyTuple_GET_SIZE(kwnames);
        for (Py_ssize_t k = 0; k < n; k++) {
            PyObject *name = PyTuple_GET_ITEM(kwnames, k);
            if (name == text_parent_space && nargs < 3)
                from = args[nargs + k];
            else if (name == text_child_space && nargs < 4)
                to = args[nargs + k];
            else
                goto slow;
        }
    }
    memset(&r, 0, sizeof(r));
    if (!plain_key(args[0], &parent) || !plain_key(args[1], &r.id) || !space_code(self, from, &r.clock) ||
        !space_code(self, to, &r.space))
        goto slow;
    r.value = (int64_t)parent;
    r.error_ns = NO_ERROR;
    r.depth = NO_DEPTH;
    r.time_ns = now_ns();
    commit(held_ring, &r);
    Py_RETURN_NONE;
slow:
    return PyObject_Vectorcall(self->slow_link, args, (size_t)nargs, kwnames);
}

static PyObject *writer_bind(Writer *self, PyObject *ring)
{
    if (!Py_IS_TYPE(ring, &RingType) || !((Ring *)ring)->slots) {
        PyErr_SetString(PyExc_TypeError, "bind takes a ring with slots");
        return NULL;
    }
    held_ring = (Ring *)ring;
    held_generation = self->generation;
    Py_RETURN_NONE;
}

static PyObject *writer_forget(Writer *self, PyObject *Py_UNUSED(ignored))
{
    self->generation = ++generations;
    Py_RETURN_NONE;
}

static PyObject *writer_switch(Writer *self, PyObject *on)
{
    int value = PyObject_IsTrue(on);
    if (value < 0)
        return NULL;
    self->on = value;
    Py_RETURN_NONE;
}

static PyMethodDef writer_methods[] = {
    {"stamp", (PyCFunction)(void (*)(void))writer_stamp, METH_FASTCALL | METH_KEYWORDS,
     "stamp(point, key, depth=None, outcome=None, mode=None, cache=None, data_age_ns=None, labels=None)"},
    {"link", (PyCFunction)(void (*)(void))writer_link, METH_FASTCALL | METH_KEYWORDS,
     "link(parent, child, parent_space='order', child_space='order')"},
    {"bind", (PyCFunction)writer_bind, METH_O, "Give the calling thread its ring."},
    {"forget", (PyCFunction)writer_forget, METH_NOARGS, "Take every thread's ring away."},
    {"switch", (PyCFunction)writer_switch, METH_O, "Turn stamping on or off."},
    {NULL},
};

static PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailsight_probe._core.Writer",
    .tp_basicsize = sizeof(Writer),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "stamp and link over the calling thread's ring.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)writer_init,
    .tp_dealloc = (destructor)writer_dealloc,
    .tp_traverse = (traverseproc)writer_traverse,
    .tp_clear = (inquiry)writer_clear,
    .tp_methods = writer_methods,
};

/* ---- module ---- */

static PyMethodDef core_methods[] = {
    {"xxh64", core_xxh64, METH_O, "XXH64 of bytes with seed 0."},
    {NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tailsight_probe._core",
    .m_doc = "The compiled writer.",
    .m_size = -1,
    .m_methods = core_methods,
};

PyMODINIT_FUNC PyInit__core(void)
{
    for (int i = 0; i < OPTIONS; i++)
        if (!option_names[i] && !(option_names[i] = PyUnicode_InternFromString(option_texts[i])))
            return NULL;
    if (!(text_order = PyUnicode_InternFromString("order")) ||
        !(text_parent_space = PyUnicode_InternFromString("parent_space")) ||
        !(text_child_space = PyUnicode_InternFromString("child_space")))
        return NULL;
    if (PyType_Ready(&RingType) < 0 || PyType_Ready(&PointType) < 0)
        return NULL;
    WriterType.tp_dict = PyDict_New();
    if (!WriterType.tp_dict)
        return NULL;
    PyObject *name = PyUnicode_FromString("c");
    if (!name || PyDict_SetItemString(WriterType.tp_dict, "implementation", name) < 0 ||
        PyDict_SetItemString(WriterType.tp_dict, "make_ring", (PyObject *)&RingType) < 0 ||
        PyDict_SetItemString(WriterType.tp_dict, "make_point", (PyObject *)&PointType) < 0)
        return NULL;
    Py_DECREF(name);
    if (PyType_Ready(&WriterType) < 0)
        return NULL;
    PyObject *module = PyModule_Create(&core_module);
    if (!module)
        return NULL;
    if (PyModule_AddObjectRef(module, "Ring", (PyObject *)&RingType) < 0 ||
        PyModule_AddObjectRef(module, "Point", (PyObject *)&PointType) < 0 ||
        PyModule_AddObjectRef(module, "Writer", (PyObject *)&WriterType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
