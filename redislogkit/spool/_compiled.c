/* Frames out of a segment, compiled: what `ShipperEnd` does frame by frame, where one follows the other. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "frame.h"

/* read_run(mapped, position, stop, expected, payloads) -> (position, expected)
Append the payloads of whole frames whose sequences follow one another from ``expected`` on, as far as ``stop``. */
static PyObject *read_run(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 5 || !PyList_CheckExact(arguments[4])) {
        PyErr_SetString(PyExc_TypeError, "read_run takes a map, 3 numbers and a list");
        return NULL;
    }
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]), stop = PyLong_AsSsize_t(arguments[2]);
    unsigned long long expected = PyLong_AsUnsignedLongLong(arguments[3]);
    Py_buffer map;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &map, PyBUF_SIMPLE) < 0)
        return NULL;
    while (position >= 0 && position <= stop && map.len - position >= HEAD) {
        const char *head = (const char *)map.buf + position;
        uint32_t length, check;
        uint64_t sequence;
        memcpy(&length, head, 4);
        memcpy(&check, head + 4, 4);
        memcpy(&sequence, head + 8, 8);
        if (length == 0 || (Py_ssize_t)length > map.len - position - HEAD || sequence != expected)
            break;
        /* A copy, as nobody keeps the producer's side from changing what is damaged. */
        PyObject *payload = PyBytes_FromStringAndSize(head + HEAD, length);
        if (payload == NULL)
            goto failed;
        if (checksum((unsigned char *)PyBytes_AS_STRING(payload), length, sequence) != check) {
            Py_DECREF(payload);
            break;
        }
        int failed = PyList_Append(arguments[4], payload) < 0;
        Py_DECREF(payload);
        if (failed)
            goto failed;
        position += HEAD + (Py_ssize_t)length;
        expected++;
    }
    PyBuffer_Release(&map);
    return Py_BuildValue("(nK)", position, expected);
failed:
    PyBuffer_Release(&map);
    return NULL;
}

static PyMethodDef methods[] = {
    {"read_run", (PyCFunction)(void (*)(void))read_run, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_compiled", "Frames out of a segment.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__compiled(void)
{
    return PyModule_Create(&definition);
}
