/* The shortest way of a record into the spool, compiled.

Theory of operation. What stands here stands in Python, too: in `record.plain_fields`, `ProducerEnd.append` and the fast
logger's method, which do it where this could not be compiled, and which say why each step is as it is. These functions
do the ordinary case only. Wherever something is out of the ordinary they have done nothing yet, and say so; the caller
then does all of it in Python.

From the look at the turn to the stores into `ProducerEnd` no Python code can run: no bytecode, no destructor, and nothing
that the garbage collector would track is made. So no signal handler and no other thread comes in between, and the turn
need not be taken. The objects that a store needs are made before the first byte is written.

Slots of `ProducerEnd` are read and written where their descriptors say that they are.
*/

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <frameobject.h>
#include <math.h>
#include <string.h>

#include "../spool/frame.h"

#if defined(Py_GIL_DISABLED) || defined(PYPY_VERSION)
#error "written for CPython and its GIL; without this module, all is done in Python"
#endif

enum { MARK_WORD = 1 };

/* ---- ProducerEnd ------------------------------------------------------------------------------------------- */

enum { S_PARKED, S_TURN, S_POSITION, S_LIMIT, S_SEQUENCE, S_MAP, S_WORDS, SLOTS };
static const char *const slot_names[SLOTS] = {"_parked", "_turn", "_position", "_limit", "sequence", "_map", "_words"};
static Py_ssize_t offsets[SLOTS];
static PyObject *end_type;
static PyObject *after_mark_name, *append_parked_name;

static int is_on = 1;

#define KIND(object) ((PyObject *)Py_TYPE(object))
#define SLOT(end, which) (*(PyObject **)((char *)(end) + offsets[which]))

/* Forget an error that is our own affair; true where it came from outside (Ctrl-C), and goes on to the caller. */
static int came_from_outside(void)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
        return 1;
    PyErr_Clear();
    return 0;
}

static unsigned char *put_number(unsigned char *at, unsigned char tag, uint64_t number, int bytes)
{
    *at++ = tag;
    while (bytes--)
        *at++ = (unsigned char)(number >> 8 * bytes);
    return at;
}

static unsigned char *put_str(unsigned char *at, const char *text, size_t size)
{
    if (size < 32)
        *at++ = (unsigned char)(0xa0 | size);
    else if (size < 1 << 8)
        at = put_number(at, 0xd9, size, 1);
    else if (size < 1 << 16)
        at = put_number(at, 0xda, size, 2);
    else
        at = put_number(at, 0xdb, size, 4);
    memcpy(at, text, size);
    return at + size;
}

static unsigned char *put_bytes(unsigned char *at, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    if (size < 1 << 8)
        at = put_number(at, 0xc4, size, 1);
    else
        at = put_number(at, 0xc5, size, 2);
    memcpy(at, PyBytes_AS_STRING(bytes), size);
    return at + size;
}

static int is_short(PyObject *bytes)
{
    return PyBytes_CheckExact(bytes) && PyBytes_GET_SIZE(bytes) < 1 << 16;
}

/* A mark was set the moment that a frame was stored: take the turn, as no other record may come before it is obeyed.
1, or -1 with an exception that came from outside. */
static int obey_mark(PyObject *end, Py_ssize_t size)
{
    PyObject *turn = Py_NewRef(SLOT(end, S_TURN)), *map = Py_NewRef(SLOT(end, S_MAP));
    PyObject *position = Py_NewRef(SLOT(end, S_POSITION)), *length = PyLong_FromSsize_t(size), *done = NULL;
    PyObject *kind, *error, *trace;
    if (length != NULL && PyList_SetSlice(turn, 1, 2, NULL) == 0) {
        done = PyObject_CallMethodObjArgs(end, after_mark_name, length, NULL);
        PyErr_Fetch(&kind, &error, &trace);
        if (done == NULL && SLOT(end, S_MAP) == map && SLOT(end, S_POSITION) == position) {
            /* The exception came before anything was done. */
            Py_XDECREF(PyObject_CallMethodObjArgs(end, after_mark_name, length, NULL));
            PyErr_Clear();
        }
        if (PyList_GET_SIZE(turn) == 1)
            PyList_Append(turn, Py_None); /* needs no memory: its place is still there */
        if (PyList_GET_SIZE(SLOT(end, S_PARKED)))
            Py_XDECREF(PyObject_CallMethodObjArgs(end, append_parked_name, NULL));
        if (kind == NULL)
            PyErr_Fetch(&kind, &error, &trace);
        PyErr_Clear();
        PyErr_Restore(kind, error, trace);
    }
    Py_DECREF(turn);
    Py_DECREF(map);
    Py_DECREF(position);
    Py_XDECREF(length);
    Py_XDECREF(done);
    return came_from_outside() ? -1 : 1; /* the record is stored: nothing else is anybody's concern */
}

/* Encode a plain record and store it: 1 when it is stored, 0 when nothing has been done; -1 with an exception, that came
from outside, when it is stored. */
static int store(PyObject *end, double created, PyObject *msg, PyObject *site, PyObject *by, Py_ssize_t most)
{
    Py_ssize_t length;
    const char *text;
    if (KIND(end) != end_type || !is_short(site) || !is_short(by))
        return 0;
    if (PyUnicode_IS_COMPACT_ASCII(msg)) {
        text = (const char *)PyUnicode_1BYTE_DATA(msg);
        length = PyUnicode_GET_LENGTH(msg);
    } else {
        text = PyUnicode_AsUTF8AndSize(msg, &length);
        if (text == NULL) { /* a lone surrogate, or no memory */
            PyErr_Clear();
            return 0;
        }
    }
    if (length > most || length > INT32_MAX)
        return 0;
    Py_ssize_t size = 2 + 9 + length + 1 + (length >= 32) + (length >= 1 << 8) + 2 * (length >= 1 << 16);
    size += PyBytes_GET_SIZE(site) + 2 + (PyBytes_GET_SIZE(site) >= 1 << 8);
    size += PyBytes_GET_SIZE(by) + 2 + (PyBytes_GET_SIZE(by) >= 1 << 8);
    if (size > most || PyList_GET_SIZE(SLOT(end, S_PARKED)) || PyList_GET_SIZE(SLOT(end, S_TURN)) != 2)
        return 0;

    Py_ssize_t position = PyLong_AsSsize_t(SLOT(end, S_POSITION)), limit = PyLong_AsSsize_t(SLOT(end, S_LIMIT));
    uint64_t sequence = PyLong_AsUnsignedLongLong(SLOT(end, S_SEQUENCE)) + 1;
    Py_ssize_t next = position + HEAD + size;
    if (next > limit)
        return 0;
    Py_buffer map, words;
    if (PyObject_GetBuffer(SLOT(end, S_MAP), &map, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (PyObject_GetBuffer(SLOT(end, S_WORDS), &words, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        PyBuffer_Release(&map);
        return 0;
    }
    volatile uint64_t *mark = (volatile uint64_t *)words.buf + MARK_WORD;
    int result = 0;
    PyObject *new_position = PyLong_FromSsize_t(next), *new_sequence = PyLong_FromUnsignedLongLong(sequence);
    if (new_position == NULL || new_sequence == NULL) {
        PyErr_Clear();
        Py_XDECREF(new_position);
        Py_XDECREF(new_sequence);
    } else if (*mark || position < 0 || next > map.len) {
        Py_DECREF(new_position);
        Py_DECREF(new_sequence);
    } else {
        unsigned char *head = (unsigned char *)map.buf + position, *payload = head + HEAD, *at = payload;
        uint64_t as_bits;
        memcpy(&as_bits, &created, 8);
        *at++ = 0x95;
        *at++ = 0x01;
        at = put_number(at, 0xcb, as_bits, 8);
        at = put_str(at, text, (size_t)length);
        at = put_bytes(at, site);
        put_bytes(at, by);
        uint32_t sizes[2] = {(uint32_t)size, checksum(payload, (size_t)size, sequence)};
        memcpy(head + 8, &sequence, 8);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        memcpy(head, sizes, 8);
        PyObject *old_position = SLOT(end, S_POSITION), *old_sequence = SLOT(end, S_SEQUENCE);
        SLOT(end, S_SEQUENCE) = new_sequence;
        SLOT(end, S_POSITION) = new_position;
        Py_DECREF(old_position);
        Py_DECREF(old_sequence);
        result = 1;
        /* The frame must be there before the look whether somebody has to be told of it. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (*mark)
            result = 2;
    }
    PyBuffer_Release(&words);
    PyBuffer_Release(&map);
    return result < 2 ? result : obey_mark(end, size);
}

/* ---- records of stock loggers ------------------------------------------------------------------------------ */

/* Attributes of a LogRecord that are looked at, in the order that logging sets them. */
enum {
    R_NAME, R_MSG, R_ARGS, R_LEVELNAME, R_LEVELNO, R_PATHNAME, R_FILENAME, R_MODULE, R_EXC_INFO, R_EXC_TEXT, R_STACK_INFO,
    R_LINENO, R_FUNCNAME, R_CREATED, R_MSECS, R_RELATIVE, R_THREAD, R_THREAD_NAME, R_PROCESS_NAME, R_PROCESS, R_TASK_NAME,
    ATTRIBUTES
};
static const char *const attribute_names[ATTRIBUTES] = {
    "name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_info", "exc_text", "stack_info",
    "lineno", "funcName", "created", "msecs", "relativeCreated", "thread", "threadName", "processName", "process", "taskName",
};
static PyObject *names[ATTRIBUTES]; /* interned */
static Py_ssize_t attribute_count;  /* of this Python's records */

static PyObject *record_type;
static PyObject *get_message_name, *get_message;
static PyObject *sites, *threads; /* as in `record` */
static PyObject *misfit;
static double latest;

/* Merge a message of class str with its arguments: a new reference to the text, whatever it is. */
static PyObject *merge(PyObject *msg, PyObject *args)
{
    int any = PyTuple_CheckExact(args) ? PyTuple_GET_SIZE(args) > 0 : PyObject_IsTrue(args);
    if (any == 0)
        return Py_NewRef(msg);
    PyObject *merged = any < 0 ? NULL : PyNumber_Remainder(msg, args);
    if (merged != NULL || !PyErr_ExceptionMatches(PyExc_Exception))
        return merged;
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    merged = PyObject_CallFunctionObjArgs(misfit, msg, args, error, NULL);
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return merged;
}

static int is_text(PyObject *object, PyObject *text)
{
    return object == text || (PyUnicode_CheckExact(object) && PyUnicode_Compare(object, text) == 0);
}

/* put_record(end, record, pid, process_name, most) -> what has become of it:
None, it is for Python; its time, it is stored; its fields, it is read and merged, and not stored. */
static PyObject *put_record(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *values[ATTRIBUTES], *dict, *key, *value;
    Py_ssize_t at = 0, known = 0;
    (void)module;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "put_record takes 5 arguments");
        return NULL;
    }
    PyObject *end = arguments[0], *record = arguments[1], *pid = arguments[2], *process_name = arguments[3];
    Py_ssize_t most = PyLong_AsSsize_t(arguments[4]);
    if (!is_on || KIND(record) != record_type
        || PyDict_GetItemWithError(((PyTypeObject *)record_type)->tp_dict, get_message_name) != get_message)
        Py_RETURN_NONE;
    dict = PyObject_GenericGetDict(record, NULL);
    if (dict == NULL) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (known == attribute_count || key != names[known]) {
            known = 0; /* an extra, or another order */
            break;
        }
        values[known++] = value;
    }
    Py_DECREF(dict); /* the record has it */
    if (known != attribute_count || !PyUnicode_CheckExact(values[R_MSG]) || values[R_EXC_TEXT] != Py_None
        || values[R_STACK_INFO] != Py_None || !PyFloat_CheckExact(values[R_CREATED])
        || !PyFloat_CheckExact(values[R_MSECS]) || !PyLong_CheckExact(values[R_LEVELNO])
        || !PyLong_CheckExact(values[R_LINENO]) || !PyLong_CheckExact(values[R_PROCESS])
        || !PyLong_CheckExact(values[R_THREAD])
        || (values[R_EXC_INFO] != Py_None && values[R_EXC_INFO] != Py_False)
        || (attribute_count == ATTRIBUTES && values[R_TASK_NAME] != Py_None) || !is_text(values[R_PROCESS_NAME], process_name)
        || PyObject_RichCompareBool(values[R_PROCESS], pid, Py_EQ) != 1)
        Py_RETURN_NONE;
    double created = PyFloat_AS_DOUBLE(values[R_CREATED]);
    if (!(created >= 0.0 && created < latest)
        || floor(fmod(created, 1.0) * 1000) != PyFloat_AS_DOUBLE(values[R_MSECS]))
        Py_RETURN_NONE;

    PyObject *msg = Py_NewRef(values[R_MSG]), *args = Py_NewRef(values[R_ARGS]), *time = Py_NewRef(values[R_CREATED]);
    PyObject *site = NULL, *by = NULL, *merged = NULL, *result = NULL;
    PyObject *thread = PyDict_GetItemWithError(threads, values[R_THREAD]);
    if (thread != NULL && PyTuple_GET_ITEM(thread, 0) == values[R_THREAD_NAME])
        by = Py_NewRef(PyTuple_GET_ITEM(thread, 1));
    /* Making a tuple may run the garbage collector, and that anything: until it has them, these are ours. */
    PyObject *const parts[] = {values[R_PATHNAME], values[R_LINENO],    values[R_NAME],
                               values[R_LEVELNO],  values[R_LEVELNAME], values[R_FUNCNAME]};
    for (int i = 0; i < 6; i++)
        Py_INCREF(parts[i]);
    PyObject *where = PyTuple_Pack(6, parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]);
    for (int i = 0; i < 6; i++)
        Py_DECREF(parts[i]);
    if (where != NULL) {
        site = PyDict_GetItemWithError(sites, where);
        Py_XINCREF(site);
        Py_DECREF(where);
    }
    if (site == NULL || by == NULL) {
        if (!came_from_outside())
            result = Py_NewRef(Py_None); /* Python learns them */
    } else {
        merged = merge(msg, args);
        if (merged != NULL) {
            int stored = PyUnicode_CheckExact(merged) ? store(end, created, merged, site, by, most) : 0;
            if (stored > 0)
                result = Py_NewRef(time);
            else if (stored == 0)
                result = Py_BuildValue("(iOOOO)", 1, time, merged, site, by);
        }
    }
    Py_XDECREF(merged);
    Py_XDECREF(by);
    Py_XDECREF(site);
    Py_DECREF(time);
    Py_DECREF(args);
    Py_DECREF(msg);
    return result;
}

/* ---- calls of the fast logger ------------------------------------------------------------------------------ */

static PyObject *fast_kinds[2], *handler_type; /* loggers, the root; SpoolHandler */
static PyObject *logging_dict, *threading_dict, *time_dict, *modules;
static PyObject *are_stock, *get_frame, *get_ident, *in_task, *is_traced, *mine, *source;
static Py_buffer same_process;
static PyObject *one;

/* Names that are looked up, interned when the module is loaded. */
#define NAMES(NAME) \
    NAME(_cache) NAME(_current_process) NAME(_end) NAME(_levelToName) NAME(_logRecordFactory) NAME(_look_at) \
    NAME(_looked_at) NAME(_max_payload) NAME(_name) NAME(_process_name) NAME(_sites) NAME(_srcfile) NAME(asyncio) \
    NAME(disabled) NAME(f_lasti) NAME(filters) NAME(get_ident) NAME(handlers) NAME(level) NAME(logMultiprocessing) \
    NAME(logProcesses) NAME(logThreads) NAME(me) NAME(name) NAME(parent) NAME(propagate) NAME(takes_fields) NAME(time) \
    NAME(time_ns)
#define DECLARE(name) static PyObject *s_##name;
NAMES(DECLARE)
static PyObject *s_multiprocessing, *s_opentelemetry;

/* A borrowed reference, NULL where there is none; never an exception. */
static PyObject *look_up(PyObject *dict, PyObject *name)
{
    PyObject *found = PyDict_GetItemWithError(dict, name);
    if (found == NULL)
        PyErr_Clear();
    return found;
}

/* The dictionary of an instance, borrowed from it; NULL where it has none. */
static PyObject *attributes_of(PyObject *object)
{
    PyObject *dict = PyObject_GenericGetDict(object, NULL);
    if (dict == NULL) {
        PyErr_Clear();
        return NULL;
    }
    Py_DECREF(dict);
    return dict;
}

/* Whether nothing was patched in these classes since it was looked at. A class gets another tag with each change, also of
its bases, so only then is there more to compare than two numbers. */
static int is_untouched(void)
{
    static unsigned int stock_tags[3];
    PyTypeObject *const kinds[3] = {
        (PyTypeObject *)fast_kinds[0], (PyTypeObject *)fast_kinds[1], (PyTypeObject *)record_type,
    };
    int same = 1;
    for (int i = 0; i < 3; i++)
        same &= kinds[i]->tp_version_tag == stock_tags[i] && stock_tags[i] != 0;
    if (same)
        return 1;
    PyObject *stock = PyObject_CallNoArgs(are_stock);
    int result = stock == Py_True; /* with an error, the caller sees where it came from */
    Py_XDECREF(stock);
    for (int i = 0; i < 3; i++)
        stock_tags[i] = result ? kinds[i]->tp_version_tag : 0;
    return result;
}

/* What may stand as the only argument: a mapping would be the dictionary of a %(name)s. */
static int is_simple(PyObject *value)
{
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyBool_Check(value)
           || value == Py_None;
}

static int is_empty_list(PyObject *value)
{
    return value != NULL && PyList_CheckExact(value) && PyList_GET_SIZE(value) == 0;
}

/* The handler that alone is reachable from a logger, borrowed; NULL where that is not so. */
static PyObject *only_handler(PyObject *attributes)
{
    for (;;) {
        PyObject *handlers = look_up(attributes, s_handlers), *parent = look_up(attributes, s_parent);
        PyObject *propagate = look_up(attributes, s_propagate);
        if (handlers == NULL || !PyList_CheckExact(handlers) || parent == NULL || propagate == NULL)
            return NULL;
        if (PyList_GET_SIZE(handlers) == 1 && (propagate == Py_False || parent == Py_None))
            return PyList_GET_ITEM(handlers, 0);
        if (PyList_GET_SIZE(handlers) || propagate != Py_True || parent == Py_None)
            return NULL;
        attributes = attributes_of(parent);
        if (attributes == NULL)
            return NULL;
    }
}

/* Whether all that a whole record would hold beyond what the call says is as usual in this process. */
static int is_usual(PyObject *handler_attributes)
{
    static PyObject **const flags[] = {&s_logThreads, &s_logProcesses, &s_logMultiprocessing};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (look_up(logging_dict, *flags[i]) != Py_True)
            return 0;
    if (look_up(logging_dict, s__logRecordFactory) != record_type
        || look_up(logging_dict, s__srcfile) != source || look_up(threading_dict, s_get_ident) != get_ident
        || ((char *)same_process.buf)[0] != 1)
        return 0;
    PyObject *multiprocessing = look_up(modules, s_multiprocessing);
    if (multiprocessing != NULL) {
        PyObject *process = PyModule_CheckExact(multiprocessing)
                                ? look_up(PyModule_GetDict(multiprocessing), s__current_process) : NULL;
        PyObject *named = process == NULL ? NULL : attributes_of(process);
        PyObject *name = named == NULL ? NULL : look_up(named, s__name);
        PyObject *own = look_up(handler_attributes, s__process_name);
        if (name == NULL || own == NULL || !PyUnicode_CheckExact(own) || !is_text(name, own))
            return 0;
    }
    PyObject *const seldom[][2] = {{s_asyncio, in_task}, {s_opentelemetry, is_traced}};
    for (int i = 0; i < 2; i++) {
        if (seldom[i][1] == Py_None || look_up(modules, seldom[i][0]) == NULL)
            continue;
        PyObject *is_so = PyObject_CallNoArgs(seldom[i][1]);
        int no = is_so == Py_False;
        Py_XDECREF(is_so);
        if (!no)
            return 0;
    }
    return 1;
}

/* Where the call stands, as it was learned: its encoded `record.Site`, borrowed; NULL where it is not known. */
static PyObject *site_of_call(PyObject *attributes, PyObject *level)
{
    PyObject *known = look_up(attributes, s__sites), *site = NULL;
    if (known == NULL || !PyDict_CheckExact(known))
        return NULL;
    PyObject *frame = PyObject_CallOneArg(get_frame, one);
    if (frame == NULL || !PyFrame_Check(frame)) {
        Py_XDECREF(frame);
        return NULL;
    }
    PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
#if PY_VERSION_HEX >= 0x030B0000
    long at = PyFrame_GetLasti((PyFrameObject *)frame);
#else
    PyObject *last = PyObject_GetAttr(frame, s_f_lasti);
    long at = last == NULL ? -1 : PyLong_AsLong(last);
    Py_XDECREF(last);
#endif
    at += PyLong_AsLong(level) << 20;
    PyObject *key = PyLong_FromUnsignedLongLong((uintptr_t)code + (unsigned long)at);
    PyObject *entry = key == NULL ? NULL : look_up(known, key);
    if (entry != NULL) { /* code, instruction, names of level and logger, site: see `_learn` */
        PyObject *levels = look_up(logging_dict, s__levelToName);
        if (PyTuple_GET_ITEM(entry, 0) == (PyObject *)code && PyLong_AsLong(PyTuple_GET_ITEM(entry, 1)) == at
            && levels != NULL && PyDict_CheckExact(levels) && PyTuple_GET_ITEM(entry, 2) == look_up(levels, level)
            && PyTuple_GET_ITEM(entry, 3) == look_up(attributes, s_name))
            site = PyTuple_GET_ITEM(entry, 4);
    }
    Py_XDECREF(key);
    Py_DECREF(code);
    Py_DECREF(frame);
    return site;
}

/* The time as a record has it, a new reference; NULL where it is for Python to find out. */
static PyObject *now(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *clock = look_up(time_dict, s_time_ns), *count = clock == NULL ? NULL : PyObject_CallNoArgs(clock);
    PyObject *time = NULL;
    if (count != NULL && PyLong_CheckExact(count)) {
        long long ns = PyLong_AsLongLong(count), part = ns % 1000000;
        /* Near its end, as a float it may be in the next millisecond, and a record tells both. */
        if (ns > 0 && part > 250 && part < 999750)
            time = PyFloat_FromDouble((double)ns / 1e9);
    }
    Py_XDECREF(count);
#else
    PyObject *clock = look_up(time_dict, s_time), *time = clock == NULL ? NULL : PyObject_CallNoArgs(clock);
    if (time != NULL && !PyFloat_CheckExact(time))
        Py_CLEAR(time);
#endif
    return time;
}

/* Encoded identifier and name of this thread, a new reference; NULL where Python has to renew it. */
static PyObject *this_thread(void)
{
    PyObject *me = PyObject_GetAttr(mine, s_me), *name = NULL, *by = NULL;
    if (me != NULL && PyTuple_CheckExact(me)) {
        name = PyObject_GetAttr(PyTuple_GET_ITEM(me, 0), s__name);
        if (name == PyTuple_GET_ITEM(me, 1))
            by = Py_NewRef(PyTuple_GET_ITEM(me, 2));
    }
    Py_XDECREF(name);
    Py_XDECREF(me);
    return by;
}

/* Merge and store a call that is ordinary; as `put_call`. */
static PyObject *put_ordinary(PyObject *handler, PyObject *of_handler, PyObject *site, PyObject *time, PyObject *msg,
                              PyObject *args)
{
    PyObject *result = NULL, *merged = merge(msg, args);
    if (merged == NULL)
        return NULL;
    PyObject *by = this_thread(); /* merging, and this, may have run anything */
    if (!came_from_outside()) {
        PyObject *end = look_up(of_handler, s__end), *most = look_up(of_handler, s__max_payload);
        int stored = 0;
        if (by != NULL && end != NULL && most != NULL && PyUnicode_CheckExact(merged)) {
            Py_INCREF(end);
            stored = store(end, PyFloat_AS_DOUBLE(time), merged, site, by, PyLong_AsSsize_t(most));
            Py_DECREF(end);
        }
        if (stored > 0) {
            PyObject *from = look_up(of_handler, s__looked_at), *to = look_up(of_handler, s__look_at);
            double created = PyFloat_AS_DOUBLE(time);
            int calm = from != NULL && to != NULL && PyFloat_CheckExact(from) && PyFloat_CheckExact(to)
                       && PyFloat_AS_DOUBLE(from) <= created && created < PyFloat_AS_DOUBLE(to);
            result = Py_NewRef(calm ? Py_None : handler);
        } else if (stored == 0)
            result = PyTuple_Pack(4, merged, time, site, handler);
    }
    Py_XDECREF(by);
    Py_DECREF(merged);
    return result;
}

/* The same for one that perhaps is not. The caller holds the handler, its attributes and those of the logger. */
static PyObject *put_through(PyObject *handler, PyObject *of_handler, PyObject *attributes, PyObject *level,
                             PyObject *msg, PyObject *args)
{
    PyObject *least = look_up(of_handler, s_level), *site = NULL, *time = NULL, *result = NULL;
    if (least != NULL && look_up(of_handler, s_takes_fields) == Py_True && PyLong_CheckExact(least)
        && !PyObject_RichCompareBool(level, least, Py_LT) && is_empty_list(look_up(of_handler, s_filters))
        && is_usual(of_handler)) {
        site = site_of_call(attributes, level);
        Py_XINCREF(site);
        time = site == NULL ? NULL : now();
    }
    if (time != NULL)
        result = put_ordinary(handler, of_handler, site, time, msg, args);
    else if (!came_from_outside())
        result = Py_NewRef(Py_False);
    Py_XDECREF(time);
    Py_XDECREF(site);
    return result;
}

/* put_call(logger, msg, args, kwargs) -> what has become of it:
False, it is for Python; None, it is done; the handler, it is stored, and it is time to look for the shipper;
(message, time, site, handler), it is merged, and not stored. */
static PyObject *put_call(PyObject *level, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 4 || source == NULL) {
        PyErr_SetString(PyExc_TypeError, "put_call takes 4 arguments, and only after bind_calls");
        return NULL;
    }
    PyObject *logger = arguments[0], *msg = arguments[1], *args = arguments[2];
    PyObject *kind = KIND(logger);
    if (!is_on || (kind != fast_kinds[0] && kind != fast_kinds[1]))
        Py_RETURN_FALSE;
    if (!is_untouched()) {
        if (came_from_outside())
            return NULL;
        Py_RETURN_FALSE;
    }
    PyObject *attributes = attributes_of(logger);
    if (attributes == NULL || look_up(attributes, s_disabled) != Py_False)
        Py_RETURN_FALSE;
    PyObject *cache = look_up(attributes, s__cache);
    PyObject *enabled = cache != NULL && PyDict_CheckExact(cache) ? look_up(cache, level) : NULL;
    if (enabled == Py_False)
        Py_RETURN_NONE;
    if (enabled != Py_True || PyDict_GET_SIZE(arguments[3]) || !PyUnicode_CheckExact(msg)
        || (PyTuple_GET_SIZE(args) == 1 && !is_simple(PyTuple_GET_ITEM(args, 0)))
        || !is_empty_list(look_up(attributes, s_filters)))
        Py_RETURN_FALSE;
    PyObject *handler = only_handler(attributes);
    PyObject *of_handler = handler == NULL || KIND(handler) != handler_type ? NULL : attributes_of(handler);
    if (of_handler == NULL)
        Py_RETURN_FALSE;
    /* From here on Python code may run, and with it another thread that takes the handler away. */
    Py_INCREF(handler);
    Py_INCREF(of_handler);
    Py_INCREF(attributes);
    PyObject *result = put_through(handler, of_handler, attributes, level, msg, args);
    Py_DECREF(attributes);
    Py_DECREF(of_handler);
    Py_DECREF(handler);
    return result;
}

static PyMethodDef put_call_method = {"put_call", (PyCFunction)(void (*)(void))put_call, METH_FASTCALL, NULL};

/* ---- the module -------------------------------------------------------------------------------------------- */

/* switch(on) -> whether it was on. When it is off, everything is for Python. */
static PyObject *switch_(PyObject *module, PyObject *on)
{
    int before = is_on;
    (void)module;
    is_on = PyObject_IsTrue(on);
    return PyBool_FromLong(before);
}

static PyObject *for_level(PyObject *module, PyObject *level)
{
    (void)module;
    return PyCFunction_New(&put_call_method, level);
}

static int give(PyObject *given, const char *name, PyObject **to)
{
    PyObject *value = PyDict_GetItemString(given, name);
    if (value == NULL) {
        PyErr_Format(PyExc_TypeError, "%s is missing", name);
        return -1;
    }
    Py_XSETREF(*to, Py_NewRef(value));
    return 0;
}

static PyObject *bind_records(PyObject *module, PyObject *nothing, PyObject *given)
{
    PyObject *found = NULL, *largest = NULL;
    (void)module, (void)nothing;
    if (give(given, "end", &end_type) < 0 || give(given, "record", &record_type) < 0
        || give(given, "names", &found) < 0 || give(given, "latest", &largest) < 0
        || give(given, "get_message", &get_message) < 0 || give(given, "sites", &sites) < 0
        || give(given, "threads", &threads) < 0 || give(given, "misfit", &misfit) < 0)
        return NULL;
    for (int i = 0; i < SLOTS; i++) {
        PyObject *slot = PyObject_GetAttrString(end_type, slot_names[i]);
        if (slot == NULL)
            return NULL;
        if (Py_TYPE(slot) != &PyMemberDescr_Type)
            return PyErr_Format(PyExc_TypeError, "%s is no slot", slot_names[i]);
        offsets[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_DECREF(slot); /* the class has it */
    }
    attribute_count = PyTuple_GET_SIZE(found);
    if (attribute_count != ATTRIBUTES && attribute_count != ATTRIBUTES - 1)
        return PyErr_Format(PyExc_TypeError, "a record with %zd attributes", attribute_count);
    for (int i = 0; i < attribute_count; i++) {
        Py_XSETREF(names[i], PyUnicode_InternFromString(attribute_names[i]));
        if (names[i] == NULL || PyUnicode_Compare(names[i], PyTuple_GET_ITEM(found, i)))
            return PyErr_Format(PyExc_TypeError, "a record with %R", PyTuple_GET_ITEM(found, i));
    }
    latest = PyFloat_AsDouble(largest);
    Py_DECREF(found);
    Py_DECREF(largest);
    Py_RETURN_NONE;
}

static PyObject *bind_calls(PyObject *module, PyObject *nothing, PyObject *given)
{
    PyObject *page = NULL;
    (void)module, (void)nothing;
    if (give(given, "logger", &fast_kinds[0]) < 0 || give(given, "root", &fast_kinds[1]) < 0
        || give(given, "handler", &handler_type) < 0 || give(given, "logging", &logging_dict) < 0
        || give(given, "threading", &threading_dict) < 0 || give(given, "time", &time_dict) < 0
        || give(given, "modules", &modules) < 0 || give(given, "are_stock", &are_stock) < 0
        || give(given, "get_frame", &get_frame) < 0 || give(given, "get_ident", &get_ident) < 0
        || give(given, "in_task", &in_task) < 0 || give(given, "is_traced", &is_traced) < 0
        || give(given, "mine", &mine) < 0 || give(given, "same_process", &page) < 0
        || PyObject_GetBuffer(page, &same_process, PyBUF_SIMPLE) < 0 || give(given, "source", &source) < 0)
        return NULL;
    Py_DECREF(page);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind_calls", (PyCFunction)(void (*)(void))bind_calls, METH_VARARGS | METH_KEYWORDS, NULL},
    {"bind_records", (PyCFunction)(void (*)(void))bind_records, METH_VARARGS | METH_KEYWORDS, NULL},
    {"for_level", for_level, METH_O, NULL},
    {"put_record", (PyCFunction)(void (*)(void))put_record, METH_FASTCALL, NULL},
    {"switch", switch_, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_compiled", "The shortest way of a record into the spool.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__compiled(void)
{
#define INTERN(name) \
    if (s_##name == NULL && (s_##name = PyUnicode_InternFromString(#name)) == NULL) \
        return NULL;
    NAMES(INTERN)
    if ((s_multiprocessing = PyUnicode_InternFromString("multiprocessing.process")) == NULL
        || (s_opentelemetry = PyUnicode_InternFromString("opentelemetry.trace")) == NULL
        || (after_mark_name = PyUnicode_InternFromString("_after_mark")) == NULL
        || (append_parked_name = PyUnicode_InternFromString("_append_parked")) == NULL
        || (get_message_name = PyUnicode_InternFromString("getMessage")) == NULL || (one = PyLong_FromLong(1)) == NULL)
        return NULL;
    return PyModule_Create(&definition);
}
