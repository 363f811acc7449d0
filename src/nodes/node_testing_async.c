// SPDX-License-Identifier: Apache-2.0
// node_testing_async.c - nodes of ComfyUI's test suite that wait, alone and beside each other, and that fail.
// Idea: what is a coroutine there says here how long it waits before its work (at_node.wait).
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack (async, api and specific tests).
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"

typedef struct wait_in {
    at_value value, input1, input2;
    double seconds, timeout;
    int64_t node_id;
    const char *resource_id, *unique_id;
    at_object *images;
    bool condition;
} wait_in;

static const at_out any_out[] = {AT_OUT("*")};
#define VALUE_ROW AT_ROW(wait_in, value, AT_IN_ANY, .type_name = "*")
#define SECONDS_ROW(label, field, d, lo, hi)                                                       \
    {                                                                                              \
        .name = label, .type = AT_IN_FLOAT, .offset = offsetof(wait_in, field), .def = d,          \
        .min = lo, .max = hi, .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX                             \
    }

static double seconds_of(at_node_ctx *c, const void *in)
{
    (void)c;
    return ((const wait_in *)in)->seconds;
}
static at_status pass_on(at_node_ctx *c, const void *in, at_value *out)
{
    const at_value *v = &((const wait_in *)in)->value;
    (void)c;
    *out = at_value_copy(v);
    return out->kind == v->kind ? AT_OK : at_fail(AT_ENOMEM, "no memory for a value");
}

static const at_in sleep_rows[] = {VALUE_ROW,
                                   {.name = "seconds",
                                    .type = AT_IN_FLOAT,
                                    .offset = offsetof(wait_in, seconds),
                                    .def = 1,
                                    .max = 9999,
                                    .step = 0.01,
                                    .tip = "The amount of seconds to sleep.",
                                    .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP},
                                   AT_ROW_HIDDEN(wait_in, unique_id, "UNIQUE_ID")};
const at_node at_node_test_sleep =
    AT_TEST_NODE("TestSleep", "Test Sleep", "_for_testing", sleep_rows, wait_in, any_out, pass_on,
                 .wait = seconds_of);

static const at_in progress_rows[] = {
    VALUE_ROW,
    {.name = "sleep_seconds", .type = AT_IN_FLOAT, .offset = offsetof(wait_in, seconds), .def = 1}};
const at_node at_node_test_async_progress =
    AT_TEST_NODE("TestAsyncProgressUpdate", "Async Progress Update Test Node", "_for_testing/async",
                 progress_rows, wait_in, any_out, pass_on, .wait = seconds_of);
const at_node at_node_test_sync_progress =
    AT_TEST_NODE("TestSyncProgressUpdate", "Sync Progress Update Test Node", "_for_testing/async",
                 progress_rows, wait_in, any_out, pass_on, .wait = seconds_of);

// Resources and places are free: nodes do their work one after the other here.
static const at_in resource_rows[] = {
    VALUE_ROW, AT_ROW(wait_in, resource_id, AT_IN_STRING, .sdef = "resource_0"),
    SECONDS_ROW("duration", seconds, 0.1, 0, 1)};
const at_node at_node_test_resource =
    AT_TEST_NODE("TestAsyncResourceUser", "Test Async Resource User", "_for_testing/async",
                 resource_rows, wait_in, any_out, pass_on, .wait = seconds_of);
static const at_in limit_rows[] = {VALUE_ROW, SECONDS_ROW("duration", seconds, 0.5, 0.1, 2),
                                   AT_ROW(wait_in, node_id, AT_IN_INT)};
const at_node at_node_test_limit =
    AT_TEST_NODE("TestAsyncConcurrentLimit", "Test Async Concurrent Limit", "_for_testing/async",
                 limit_rows, wait_in, any_out, pass_on, .wait = seconds_of);

// --- failures ------------------------------------------------------------------------------------
static at_status async_fail(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)in, (void)out;
    return at_fail(AT_EDEVICE, "Intentional async execution error for testing"); // a RuntimeError
}
static at_status sync_fail(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)in, (void)out;
    return at_fail(AT_EDEVICE, "Intentional sync execution error for testing");
}
static const at_in async_error_rows[] = {VALUE_ROW,
                                         SECONDS_ROW("error_after", seconds, 0.1, 0, 10)};
static const at_in sync_error_rows[] = {VALUE_ROW};
const at_node at_node_test_async_error =
    AT_TEST_NODE("TestAsyncError", "Test Async Error", "_for_testing/async", async_error_rows,
                 wait_in, any_out, async_fail, .wait = seconds_of);
const at_node at_node_test_sync_error =
    AT_TEST_NODE("TestSyncError", "Test Sync Error", "_for_testing/async", sync_error_rows, wait_in,
                 any_out, sync_fail);

static double until_timeout(at_node_ctx *c, const void *in)
{
    const wait_in *i = in;
    (void)c;
    return i->seconds < i->timeout ? i->seconds : i->timeout;
}
static at_status timeout_run(at_node_ctx *c, const void *in, at_value *out)
{
    const wait_in *i = in;
    if (i->seconds > i->timeout)
        return at_fail(AT_EDEVICE, "Operation timed out after %.17g seconds", i->timeout);
    return pass_on(c, in, out);
}
static const at_in timeout_rows[] = {VALUE_ROW, SECONDS_ROW("timeout", timeout, 1, 0.1, 10),
                                     SECONDS_ROW("operation_time", seconds, 2, 0.1, 10)};
const at_node at_node_test_timeout =
    AT_TEST_NODE("TestAsyncTimeout", "Test Async Timeout", "_for_testing/async", timeout_rows,
                 wait_in, any_out, timeout_run, .wait = until_timeout);

// --- pictures ------------------------------------------------------------------------------------
static at_status white(at_node_ctx *c, const void *in, at_value *out)
{
    at_tensor *t = NULL;
    float *p;
    at_status st = at_pixels_new("TestAsyncLazyCheck", 1, 512, 512, 3, &t, &p);

    (void)c, (void)in;
    for (int64_t i = 0; st == AT_OK && i < at_tensor_count(t); i++)
        p[i] = 1;
    return st == AT_OK ? at_give_image("TestAsyncLazyCheck", t, out) : st;
}
static at_status lazy_need(at_node_ctx *c, const void *in)
{
    const wait_in *i = in;
    if (i->condition && i->input1.kind == AT_VAL_NONE) return at_node_need(c, "input1");
    if (!i->condition && i->input2.kind == AT_VAL_NONE) return at_node_need(c, "input2");
    return AT_OK;
}
static const at_in lazy_rows[] = {
    AT_ROW(wait_in, input1, AT_IN_ANY, .type_name = "*", .flags = AT_INF_LAZY),
    AT_ROW(wait_in, input2, AT_IN_ANY, .type_name = "*", .flags = AT_INF_LAZY),
    AT_ROW(wait_in, condition, AT_IN_BOOL, .def = 1)};
const at_node at_node_test_async_lazy =
    AT_TEST_NODE("TestAsyncLazyCheck", "Test Async Lazy Check", "_for_testing/async", lazy_rows,
                 wait_in, at_image_out, white, .lazy = lazy_need);

static double batch_wait(at_node_ctx *c, const void *in)
{
    const wait_in *i = in;
    at_pixels x;
    (void)c;
    return at_pixels_of("TestAsyncBatchProcessing", i->images, &x) == AT_OK
               ? i->seconds * (double)x.b
               : 0;
}
static at_status invert(at_node_ctx *c, const void *in, at_value *out)
{
    static const char node[] = "TestAsyncBatchProcessing";
    at_status st = AT_OK;
    at_tensor *t = NULL;
    at_pixels x;
    float *p;

    AT_TRY(at_pixels_of(node, ((const wait_in *)in)->images, &x));
    AT_TRY(at_pixels_new(node, x.b, x.h, x.w, x.c, &t, &p));
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = 1 - x.p[i];
    at_node_progress(c, (double)x.b, (double)x.b);
    st = at_give_image(node, t, out);
out:
    return st;
}
static const at_in batch_rows[] = {AT_ROW_LINK_BARE(wait_in, images, "IMAGE"),
                                   SECONDS_ROW("process_time_per_item", seconds, 0.1, 0.01, 1),
                                   AT_ROW_HIDDEN(wait_in, unique_id, "UNIQUE_ID")};
const at_node at_node_test_batch =
    AT_TEST_NODE("TestAsyncBatchProcessing", "Test Async Batch Processing", "_for_testing/async",
                 batch_rows, wait_in, at_image_out, invert, .wait = batch_wait);
