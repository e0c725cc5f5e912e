/* SPDX-License-Identifier: MIT
 *
 * Fake time and chance: a heap of events ordered by time, then by age. */
#include <stdio.h>

#include "sim.h"

struct event {
    raft_time at;
    uint64_t number, incarnation;
    struct node *node;
    void (*fn)(void *arg);
    void *arg;
};

raft_time sim_now;
static uint64_t random_state, numbers;
static struct event *heap;
static size_t count, cap;

void *sim_alloc(size_t size)
{
    void *p = calloc(1, size == 0 ? 1 : size);

    if (p == NULL) {
        (void)fputs("raft_sim: out of memory\n", stderr);
        exit(2);
    }
    return p;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_next(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void sim_seed(uint64_t seed)
{
    random_state = seed;
}

int sim_range(int low, int high)
{
    return low + (int)(random_next() % (uint64_t)(high - low + 1));
}

bool sim_chance(int percent)
{
    return sim_range(0, 99) < percent;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->number < b->number);
}

static void swap(size_t i, size_t k)
{
    struct event e = heap[i];

    heap[i] = heap[k];
    heap[k] = e;
}

void sim_at(raft_time delay, struct node *node, void (*fn)(void *arg), void *arg)
{
    size_t i = count;

    if (count == cap) {
        cap = cap == 0 ? 1024 : 2 * cap;
        heap = realloc(heap, cap * sizeof *heap);
        if (heap == NULL) {
            exit(2);
        }
    }
    heap[count++] = (struct event){
        sim_now + delay, numbers++, node == NULL ? 0 : node->incarnation, node, fn, arg};
    for (; i > 0 && before(&heap[i], &heap[(i - 1) / 2]); i = (i - 1) / 2) {
        swap(i, (i - 1) / 2);
    }
}

static struct event pop(void)
{
    struct event first = heap[0];
    size_t i = 0;

    heap[0] = heap[--count];
    for (;;) {
        size_t least = i;

        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < count; child++) {
            least = before(&heap[child], &heap[least]) ? child : least;
        }
        if (least == i) {
            return first;
        }
        swap(i, least);
        i = least;
    }
}

bool sim_step(raft_time end)
{
    struct event e;

    if (count == 0 || heap[0].at > end) {
        return false;
    }
    e = pop();
    sim_now = e.at;
    if (e.node == NULL || (e.node->up && e.node->incarnation == e.incarnation)) {
        e.fn(e.arg);
        if (e.node != NULL) {
            node_stepped(e.node);
        }
    }
    return true;
}
