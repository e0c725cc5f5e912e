/* SPDX-License-Identifier: MIT
 *
 * The fake host: one thread, fake clock, one seed; see kvs/mock.h.
 *
 * What is ready (a loop with tasks, a queue with work) is chosen at random by the seed, so that
 * seeds are schedules. Time moves only when nothing is ready. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mock_private.h"

#define START_MS 1700000000000u

uint64_t mock_random(struct kvs_mock *m)
{
    uint64_t z = m->rng += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void mock_stop_test(const char *why)
{
    (void)fprintf(stderr, "mock: %s\n", why);
    abort();
}

int mock_fault(struct kvs_mock *m, struct fault *f)
{
    if (f->countdown == 0 || (f->countdown > 1 && f->countdown-- > 0)) {
        return 0;
    }
    m->fired = 1;
    if (f->once) {
        f->countdown = 0;
    }
    return 1;
}

void mock_push(struct task_list *list, struct kvs_task *task)
{
    task->next = NULL;
    if (list->head == NULL) {
        list->head = task;
    } else {
        list->tail->next = task;
    }
    list->tail = task;
}

static struct kvs_task *pop(struct task_list *list)
{
    struct kvs_task *task = list->head;

    if (task != NULL) {
        list->head = task->next;
    }
    return task;
}

/* ---- log, clock, random ------------------------------------------------------------------------
 */

KVS_PRINTF(4, 5)
static void mock_log(void *ctx, uint32_t level, const char *event, const char *fmt, ...)
{
    static const char *const NAMES[] = {"error", "warn", "info", "debug"};
    char text[1024];
    va_list args;

    (void)ctx;
    va_start(args, fmt);
    /* Formatted even if nobody reads it: sanitizers see the arguments. */
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (getenv("KVS_MOCK_LOG") != NULL) {
        (void)fprintf(stderr, "%s %s %s\n", NAMES[level & 3], event, text);
    }
}

static uint64_t mock_now_ms(void *ctx)
{
    const struct kvs_mock *m = ctx;

    return (uint64_t)((int64_t)(m->now_ns / 1000000u) + m->wall_offset_ms);
}

static uint64_t mock_mono_ns(void *ctx)
{
    const struct kvs_mock *m = ctx;

    return m->now_ns;
}

static void mock_random_bytes(void *ctx, void *buf, size_t len)
{
    uint8_t *p = buf;

    while (len-- > 0) {
        *p++ = (uint8_t)mock_random(ctx);
    }
}

/* ---- loops, timers, queues ---------------------------------------------------------------------
 */

static uint64_t later(uint64_t ns, uint64_t ms)
{
    return ms > (UINT64_MAX - ns) / 1000000u ? UINT64_MAX : ns + ms * 1000000u;
}

static void loop_check(const struct kvs_mock *m, uint32_t loop)
{
    if (loop >= m->loop_count) {
        mock_stop_test("a loop that does not exist");
    }
}

static uint32_t mock_loop_current(void *ctx)
{
    const struct kvs_mock *m = ctx;

    return m->current;
}

static void mock_post(void *ctx, uint32_t loop, struct kvs_task *task)
{
    struct kvs_mock *m = ctx;

    loop_check(m, loop);
    mock_push(&m->tasks[loop], task);
}

static void mock_defer(void *ctx, struct kvs_task *task)
{
    struct kvs_mock *m = ctx;

    if (m->current == KVS_LOOP_NONE) {
        mock_stop_test("defer outside a loop");
    }
    mock_push(&m->deferred[m->current], task);
}

static void mock_run_on(void *ctx, uint32_t loop, void (*fn)(void *arg), void *arg)
{
    struct kvs_mock *m = ctx;

    loop_check(m, loop);
    if (m->current != KVS_LOOP_NONE) {
        mock_stop_test("run_on from a loop: a loop that waits for another may wait for ever");
    }
    m->current = loop;
    fn(arg);
    m->current = KVS_LOOP_NONE;
}

static struct kvs_timer *mock_timer_start(void *ctx, uint64_t delay_ms, uint64_t period_ms,
                                          void (*fn)(void *arg), void *arg)
{
    struct kvs_mock *m = ctx;
    struct kvs_timer *t;

    if (m->current == KVS_LOOP_NONE) {
        mock_stop_test("timer outside a loop");
    }
    t = mock_fault(m, &m->fail_alloc) ? NULL : calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->due_ns = later(m->now_ns, delay_ms);
    t->period_ns = later(0, period_ms);
    t->order = m->order++;
    t->loop = m->current;
    t->fn = fn;
    t->arg = arg;
    t->next = m->timers;
    m->timers = t;
    return t;
}

static void timer_remove(struct kvs_timer **at)
{
    struct kvs_timer *timer = *at;

    *at = timer->next;
    free(timer);
}

static void mock_timer_stop(void *ctx, struct kvs_timer *timer)
{
    struct kvs_mock *m = ctx;

    for (struct kvs_timer **at = &m->timers; *at != NULL; at = &(*at)->next) {
        if (*at == timer) {
            if (m->current != timer->loop) {
                mock_stop_test("stop of a timer of another loop");
            }
            timer_remove(at);
            return;
        }
    }
    if (timer != NULL) {
        mock_stop_test("stop of a timer that does not run");
    }
}

static int mock_watch_start(void *ctx, int fd, uint32_t events,
                            void (*fn)(void *arg, uint32_t events), void *arg,
                            struct kvs_watch **ret_watch, struct kvs_error *err)
{
    (void)ctx;
    (void)fd;
    (void)events;
    (void)fn;
    (void)arg;
    (void)ret_watch;
    return kvs_err(err, KVS_ENOTSUP, "the fake host has no descriptors");
}

static void mock_watch_stop(void *ctx, struct kvs_watch *watch)
{
    (void)ctx;
    (void)watch;
}

static int mock_queue_new(void *ctx, const char *name, uint32_t dedicated,
                          struct kvs_queue **ret_queue, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;

    (void)dedicated;
    if (mock_fault(m, &m->fail_alloc)) {
        return kvs_err(err, KVS_ENOMEM, "queue '%s': out of memory", name);
    }
    for (uint32_t i = 0; i < MOCK_QUEUE_MAX; i++) {
        if (m->queues[i] == NULL) {
            m->queues[i] = calloc(1, sizeof *m->queues[i]);
            if (m->queues[i] == NULL) {
                mock_stop_test("out of memory");
            }
            m->queues[i]->mock = m;
            *ret_queue = m->queues[i];
            return 0;
        }
    }
    return kvs_err(err, KVS_ETOOMANY, "too many queues");
}

static void work_done(struct kvs_task *task)
{
    struct kvs_work *w = KVS_CONTAINER_OF(task, struct kvs_work, task);

    w->done(w);
}

static void queue_step(struct kvs_queue *q)
{
    struct kvs_work *w = KVS_CONTAINER_OF(pop(&q->work), struct kvs_work, task);
    void (*done)(struct kvs_work * work) = w->done; /* without it w may be gone after run */
    struct kvs_mock *m = q->mock;
    uint32_t before = m->current;

    m->current = KVS_LOOP_NONE;
    m->depth++;
    w->run(w);
    if (done != NULL && w->reply_loop == KVS_LOOP_NONE) {
        done(w);
    } else if (done != NULL) {
        w->task.run = work_done;
        mock_post(m, w->reply_loop, &w->task);
    }
    m->depth--;
    m->current = before;
}

static void mock_queue_submit(void *ctx, struct kvs_queue *queue, struct kvs_work *work)
{
    (void)ctx;
    mock_push(&queue->work, &work->task);
}

static void mock_queue_free(void *ctx, struct kvs_queue *queue)
{
    struct kvs_mock *m = ctx;

    if (queue == NULL) {
        return;
    }
    while (queue->work.head != NULL) {
        queue_step(queue);
    }
    for (uint32_t i = 0; i < MOCK_QUEUE_MAX; i++) {
        if (m->queues[i] == queue) {
            m->queues[i] = NULL;
        }
    }
    free(queue);
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void round_end(struct kvs_mock *m, uint32_t loop)
{
    struct kvs_task *task;

    while ((task = pop(&m->deferred[loop])) != NULL) {
        task->run(task);
    }
}

static void loop_turn(struct kvs_mock *m, uint32_t loop)
{
    uint64_t burst = mock_random(m) % 4;
    uint32_t before = m->current;
    struct kvs_task *task;

    m->current = loop;
    m->depth++;
    do {
        task = pop(&m->tasks[loop]);
        if (task != NULL) {
            task->run(task);
        }
    } while (task != NULL && burst-- > 0);
    round_end(m, loop);
    m->depth--;
    m->current = before;
}

/* One thing that needs no time to pass. 0: there is none. */
static int step(struct kvs_mock *m)
{
    uint32_t sources = m->loop_count + MOCK_QUEUE_MAX, first = (uint32_t)(mock_random(m) % sources);

    if (m->stalled++ == MOCK_STALL_EVENT_MAX) {
        mock_stop_test("events beget events and no time passes");
    }
    for (uint32_t n = 0; n < sources; n++) {
        uint32_t i = (first + n) % sources;

        if (i < m->loop_count && (m->tasks[i].head != NULL || m->deferred[i].head != NULL)) {
            loop_turn(m, i);
            return 1;
        }
        if (i >= m->loop_count && m->queues[i - m->loop_count] != NULL &&
            m->queues[i - m->loop_count]->work.head != NULL) {
            queue_step(m->queues[i - m->loop_count]);
            return 1;
        }
    }
    return 0;
}

static int fire_timer(struct kvs_mock *m, uint64_t until_ns)
{
    struct kvs_timer **at = NULL, *first;
    void (*fn)(void *arg);
    uint32_t before = m->current, loop;
    void *arg;

    for (struct kvs_timer **t = &m->timers; *t != NULL; t = &(*t)->next) {
        if (at == NULL || (*t)->due_ns < (*at)->due_ns ||
            ((*t)->due_ns == (*at)->due_ns && (*t)->order < (*at)->order)) {
            at = t;
        }
    }
    if (at == NULL || (*at)->due_ns > until_ns) {
        return 0;
    }
    first = *at;
    if (first->due_ns > m->now_ns) {
        m->now_ns = first->due_ns;
        m->stalled = 0;
    }
    fn = first->fn;
    arg = first->arg;
    loop = first->loop;
    if (first->period_ns == 0) {
        timer_remove(at);
    } else {
        first->due_ns += first->period_ns;
        first->order = m->order++;
    }
    m->current = loop;
    m->depth++;
    fn(arg);
    round_end(m, loop);
    m->depth--;
    m->current = before;
    return 1;
}

uint64_t kvs_mock_run(struct kvs_mock *m, uint64_t ms)
{
    uint64_t until = later(m->now_ns, ms), n = 0;

    m->stalled = 0;
    while (step(m) || fire_timer(m, until)) {
        n++;
    }
    m->now_ns = until > m->now_ns ? until : m->now_ns;
    return n;
}

void kvs_mock_run_until(struct kvs_mock *m, const int *flag)
{
    uint64_t until = later(m->now_ns, MOCK_WAIT_MS_MAX);

    m->stalled = 0;
    while (*flag == 0) {
        if (!step(m) && !fire_timer(m, until)) {
            mock_stop_test("run_until: nothing is left to run, or a day has passed");
        }
    }
}

void kvs_mock_enter(struct kvs_mock *m, uint32_t loop)
{
    if (loop != KVS_LOOP_NONE) {
        loop_check(m, loop);
    }
    m->current = loop;
}

void kvs_mock_wall_jump(struct kvs_mock *m, int64_t ms)
{
    m->wall_offset_ms += ms;
}

/* ---- plugins, metrics, readiness ---------------------------------------------------------------
 */

static int mock_each(void *ctx, uint32_t kind, uint32_t i, const char **ret_name,
                     const void **ret_ops, void **ret_self)
{
    const struct kvs_mock *m = ctx;

    for (uint32_t n = 0; n < m->plugin_count; n++) {
        if (m->plugins[n].kind != kind || i-- != 0) {
            continue;
        }
        if (ret_name != NULL) {
            *ret_name = m->plugins[n].name;
        }
        if (ret_ops != NULL) {
            *ret_ops = m->plugins[n].ops;
        }
        if (ret_self != NULL) {
            *ret_self = m->plugins[n].self;
        }
        return 0;
    }
    return KVS_ENOTFOUND;
}

static int mock_find(void *ctx, uint32_t kind, const char *name, const void **ret_ops,
                     void **ret_self, struct kvs_error *err)
{
    const char *found;

    if (name == NULL && mock_each(ctx, kind, 1, &found, NULL, NULL) == 0) {
        return kvs_err(err, KVS_ECONFLICT, "several plugins of the kind: name one");
    }
    for (uint32_t i = 0; mock_each(ctx, kind, i, &found, NULL, NULL) == 0; i++) {
        if (name == NULL || strcmp(name, found) == 0) {
            return mock_each(ctx, kind, i, NULL, ret_ops, ret_self);
        }
    }
    return kvs_err(err, KVS_ENOTFOUND, "no such plugin");
}

void kvs_mock_add(struct kvs_mock *m, uint32_t kind, const char *name, const void *ops, void *self)
{
    if (m->plugin_count == MOCK_PLUGIN_MAX) {
        mock_stop_test("too many plugins");
    }
    m->plugins[m->plugin_count].kind = kind;
    m->plugins[m->plugin_count].name = name;
    m->plugins[m->plugin_count].ops = ops;
    m->plugins[m->plugin_count].self = self;
    m->plugin_count++;
}

static struct kvs_metric_ref *mock_metric(void *ctx, const struct kvs_metric *def,
                                          const char *labels)
{
    struct kvs_mock *m = ctx;
    struct kvs_metric_ref *r = m->metrics;

    while (r != NULL && (r->def != def || strcmp(r->labels, labels) != 0)) {
        r = r->next;
    }
    if (r == NULL && !mock_fault(m, &m->fail_alloc)) {
        r = calloc(1, sizeof *r + strlen(labels) + 1);
        if (r == NULL) {
            mock_stop_test("out of memory");
        }
        r->def = def;
        memcpy(r->labels, labels, strlen(labels) + 1);
        r->next = m->metrics;
        m->metrics = r;
    }
    return r; /* NULL if memory is out: such a metric counts nothing */
}

static void mock_metric_add(void *ctx, struct kvs_metric_ref *ref, int64_t delta)
{
    (void)ctx;
    if (ref != NULL) {
        ref->value += delta;
    }
}

static void mock_metric_set(void *ctx, struct kvs_metric_ref *ref, int64_t value)
{
    (void)ctx;
    if (ref != NULL) {
        ref->value = value;
    }
}

static void mock_metric_observe(void *ctx, struct kvs_metric_ref *ref, uint64_t value)
{
    (void)ctx;
    (void)value;
    if (ref != NULL) {
        ref->value++;
    }
}

static void mock_metric_free(void *ctx, struct kvs_metric_ref *ref)
{
    struct kvs_mock *m = ctx;

    for (struct kvs_metric_ref **at = &m->metrics; *at != NULL; at = &(*at)->next) {
        if (*at == ref) {
            *at = ref->next;
            free(ref);
            return;
        }
    }
}

int64_t kvs_mock_metric(struct kvs_mock *m, const char *name)
{
    int64_t sum = 0;

    for (const struct kvs_metric_ref *r = m->metrics; r != NULL; r = r->next) {
        if (strcmp(r->def->name, name) == 0) {
            sum += r->value;
        }
    }
    return sum;
}

static void mock_ready_set(void *ctx, const char *condition, uint32_t ok, const char *reason)
{
    struct kvs_mock *m = ctx;
    uint32_t i = 0;

    while (i < m->condition_count && strcmp(m->conditions[i].name, condition) != 0) {
        i++;
    }
    if (i == KVS_ARRAY_COUNT(m->conditions)) {
        mock_stop_test("too many conditions");
    }
    m->condition_count += i == m->condition_count;
    (void)snprintf(m->conditions[i].name, sizeof m->conditions[i].name, "%s", condition);
    (void)snprintf(m->conditions[i].reason, sizeof m->conditions[i].reason, "%s",
                   reason == NULL ? "" : reason);
    m->conditions[i].ok = ok != 0;
}

const char *kvs_mock_not_ready(struct kvs_mock *m, const char *condition)
{
    for (uint32_t i = 0; i < m->condition_count; i++) {
        if (strcmp(m->conditions[i].name, condition) == 0) {
            return m->conditions[i].ok ? NULL : m->conditions[i].reason;
        }
    }
    return NULL;
}

static int mock_fault_point(void *ctx, const char *point)
{
    struct kvs_mock *m = ctx;

    if (m->fail_point == NULL || strcmp(m->fail_point, point) != 0) {
        return 0;
    }
    m->fired = 1;
    return m->fail_point_code;
}

void kvs_mock_fail_point(struct kvs_mock *m, const char *point, int code)
{
    m->fail_point = point;
    m->fail_point_code = code;
    m->fired = 0;
}

int kvs_mock_fault_fired(struct kvs_mock *m)
{
    return m->fired;
}

static KVS_NORETURN void mock_panic(void *ctx, const char *file, int line, const char *what)
{
    (void)ctx;
    (void)fprintf(stderr, "mock: panic: %s at %s:%d\n", what, file, line);
    abort();
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void table_fill(struct kvs_mock *m)
{
    m->host = (struct kvs_host){
        .size = sizeof m->host,
        .abi_major = KVS_ABI_MAJOR,
        .abi_minor = KVS_ABI_MINOR,
        .ctx = m,
        .node_id = m->node_id,
        .rack = "",
        .data_dir = "/nonexistent",
        .version = "mock",
        .loop_count = m->loop_count,
        .log_level = &m->log_level,
        .fs = &m->fs,
        .log = mock_log,
        .now_ms = mock_now_ms,
        .mono_ns = mock_mono_ns,
        .random = mock_random_bytes,
        .loop_current = mock_loop_current,
        .post = mock_post,
        .defer = mock_defer,
        .run_on = mock_run_on,
        .timer_start = mock_timer_start,
        .timer_stop = mock_timer_stop,
        .watch_start = mock_watch_start,
        .watch_stop = mock_watch_stop,
        .queue_new = mock_queue_new,
        .queue_submit = mock_queue_submit,
        .queue_free = mock_queue_free,
        .find = mock_find,
        .each = mock_each,
        .metric = mock_metric,
        .metric_add = mock_metric_add,
        .metric_set = mock_metric_set,
        .metric_observe = mock_metric_observe,
        .metric_free = mock_metric_free,
        .ready_set = mock_ready_set,
        .fault = mock_fault_point,
        .panic = mock_panic,
    };
    mock_memory_fill(m);
    mock_disk_fill(m);
    mock_request_fill(m);
}

struct kvs_mock *kvs_mock_new(const struct kvs_mock_conf *conf)
{
    struct kvs_mock *m = calloc(1, sizeof *m);

    if (m == NULL) {
        mock_stop_test("out of memory");
    }
    m->rng = conf->seed;
    m->loop_count = conf->loop_count == 0 ? 1 : conf->loop_count;
    m->current = KVS_LOOP_NONE;
    m->log_level = conf->log_level;
    m->now_ns = 1000000000u;
    m->wall_offset_ms = (int64_t)(conf->start_ms == 0 ? START_MS : conf->start_ms) - 1000;
    (void)snprintf(m->node_id, sizeof m->node_id, "%s",
                   conf->node_id == NULL ? "mock-1" : conf->node_id);
    if (m->loop_count > MOCK_LOOP_MAX) {
        mock_stop_test("too many loops");
    }
    table_fill(m);
    return m;
}

const struct kvs_host *kvs_mock_host(struct kvs_mock *m)
{
    return &m->host;
}

static void forget_running(struct kvs_mock *m)
{
    while (m->timers != NULL) {
        timer_remove(&m->timers);
    }
    for (uint32_t i = 0; i < MOCK_QUEUE_MAX; i++) {
        free(m->queues[i]);
        m->queues[i] = NULL;
    }
    memset(m->tasks, 0, sizeof m->tasks);
    memset(m->deferred, 0, sizeof m->deferred);
}

/* What a plugin that has ended may not leave behind. Prints it; returns how many. */
static uint32_t running_held(const struct kvs_mock *m)
{
    uint32_t held = 0;

    for (const struct kvs_timer *t = m->timers; t != NULL; t = t->next) {
        (void)fprintf(stderr, "mock: a timer of loop %u still runs\n", t->loop);
        held++;
    }
    for (uint32_t i = 0; i < MOCK_QUEUE_MAX; i++) {
        if (m->queues[i] != NULL) {
            (void)fprintf(stderr, "mock: a queue was not freed\n");
            held++;
        }
    }
    if (m->files != NULL) {
        (void)fprintf(stderr, "mock: a file is still open\n");
        held++;
    }
    return held;
}

static void metrics_free(struct kvs_mock *m)
{
    while (m->metrics != NULL) {
        struct kvs_metric_ref *next = m->metrics->next;

        free(m->metrics);
        m->metrics = next;
    }
}

void kvs_mock_crash(struct kvs_mock *m, uint64_t seed)
{
    if (m->depth > 0) {
        mock_stop_test("a crash from inside an event: let it return first");
    }
    m->rng ^= seed * 0x9e3779b97f4a7c15u;
    m->current = KVS_LOOP_NONE;
    forget_running(m);
    metrics_free(m);
    m->plugin_count = 0;
    m->condition_count = 0;
    m->answer_count = 0;
    m->fail_point = NULL;
    m->fail_io.countdown = m->fail_alloc.countdown = m->fail_sync.countdown = 0;
    mock_disk_crash(m);
    mock_memory_forget(m);
}

void kvs_mock_free(struct kvs_mock *m)
{
    uint32_t held;

    if (m == NULL) {
        return;
    }
    held = mock_memory_held(m) + running_held(m);
    mock_request_free(m);
    forget_running(m);
    metrics_free(m);
    mock_disk_free(m);
    mock_memory_forget(m);
    free(m);
    if (held > 0) {
        mock_stop_test("a plugin did not give back all it took");
    }
}
