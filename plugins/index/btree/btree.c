/* SPDX-License-Identifier: MIT
 *
 * index-btree: a B+tree of entry pointers, ordered by key; nodes in node.h.
 *
 * Inserting splits on the way of the path, deleting merges where two neighbours fit into one node
 * and removes what became empty; nothing is balanced beyond that, which keeps both short. Keys that
 * arrive in order leave full leaves behind them. All nodes a split needs are allocated before
 * anything changes, so that running out of memory changes nothing.
 *
 * Separators are entry pointers: separators[i] is the first entry below children[i + 1]. So when
 * that entry is replaced or deleted, the separator follows (fix_first).
 *
 * Source: Bayer and McCreight, "Organization and Maintenance of Large Ordered Indexes" (1972);
 * Graefe, "Modern B-Tree Techniques" (2011), 3.3 on poor man's normalized keys. */
#include "node.h"

#define DEPTH_MAX   16u
#define SPARSE(cap) ((cap) / 3u) /* fewer than this: look for a neighbour to merge with */

struct kvs_index_map {
    const struct kvs_host *host;
    struct kvs_index_conf conf;
    struct head *root; /* NULL: empty */
    uint64_t count, memory;
};

/* The way from the root to a leaf: path[i].node has taken child path[i].at. */
struct path {
    uint32_t depth; /* inner nodes */
    struct {
        struct inner *node;
        uint32_t at;
    } step[DEPTH_MAX];
    struct leaf *leaf;
};

static void *node_new(struct kvs_index_map *m, int is_leaf)
{
    size_t size = is_leaf ? sizeof(struct leaf) : sizeof(struct inner);
    struct head *h = kvs_alloc(m->host, m->conf.tag, size);

    if (h != NULL) {
        memset(h, 0, sizeof *h);
        h->is_leaf = is_leaf != 0;
        m->memory += size;
    }
    return h;
}

static void node_free(struct kvs_index_map *m, struct head *h)
{
    size_t size = h->is_leaf ? sizeof(struct leaf) : sizeof(struct inner);

    kvs_free(m->host, m->conf.tag, h, size);
    m->memory -= size;
}

/* The leaf where key is or belongs. */
static struct leaf *descend(const struct kvs_index_map *m, struct kvs_slice key, struct path *p)
{
    struct head *h = m->root;

    p->depth = 0;
    while (!h->is_leaf) {
        struct inner *n = (struct inner *)(void *)h;
        int exact;
        uint32_t at = node_search(&m->conf, &n->h, n->heads, n->separators, key, &exact);

        at += exact != 0; /* a separator belongs to the right of it */
        p->step[p->depth].node = n;
        p->step[p->depth].at = at;
        p->depth++;
        h = n->children[at];
    }
    p->leaf = (struct leaf *)(void *)h;
    return p->leaf;
}

/* The first entry below the path's leaf changed: the separator that names it follows. */
static void fix_first(struct kvs_index_map *m, struct path *p, uint32_t depth, void *first)
{
    while (depth > 0) {
        struct inner *n = p->step[--depth].node;
        uint32_t at = p->step[depth].at;

        if (at > 0) {
            node_set(&m->conf, &n->h, n->heads, n->separators, at - 1, first);
            return;
        }
    }
}

/* ---- life --------------------------------------------------------------------------------------
 */

static int btree_map_new(void *self, const struct kvs_index_conf *conf,
                         struct kvs_index_map **ret_map)
{
    const struct kvs_host *host = self;
    struct kvs_index_map *m = kvs_calloc(host, conf->tag, sizeof *m);

    if (m == NULL) {
        return KVS_ENOMEM;
    }
    m->host = host;
    m->conf = *conf;
    m->memory = sizeof *m;
    *ret_map = m;
    return 0;
}

static void btree_map_free(struct kvs_index_map *m)
{
    struct {
        struct inner *node;
        uint32_t next;
    } stack[DEPTH_MAX];
    uint32_t depth = 0;
    struct head *h;

    if (m == NULL) {
        return;
    }
    h = m->root;
    while (h != NULL) {
        if (!h->is_leaf) {
            stack[depth].node = (struct inner *)(void *)h;
            stack[depth].next = 0;
            depth++;
        } else {
            node_free(m, h);
        }
        h = NULL;
        while (depth > 0 && h == NULL) {
            struct inner *n = stack[depth - 1].node;

            if (stack[depth - 1].next <= n->h.count) {
                h = n->children[stack[depth - 1].next++];
            } else {
                node_free(m, &n->h);
                depth--;
            }
        }
    }
    kvs_free(m->host, m->conf.tag, m, sizeof *m);
}

static uint64_t btree_count(const struct kvs_index_map *m)
{
    return m->count;
}

static uint64_t btree_memory(const struct kvs_index_map *m)
{
    return m->memory;
}

static void *btree_get(const struct kvs_index_map *m, struct kvs_slice key)
{
    struct head *h = m->root;
    int exact = 0;

    while (h != NULL) {
        uint32_t at;

        if (h->is_leaf) {
            const struct leaf *l = (const struct leaf *)(const void *)h;

            at = node_search(&m->conf, h, l->heads, l->entries, key, &exact);
            return exact ? l->entries[at] : NULL;
        }
        const struct inner *n = (const struct inner *)(const void *)h;

        at = node_search(&m->conf, h, n->heads, n->separators, key, &exact);
        h = n->children[at + (exact != 0)];
    }
    return NULL;
}

/* ---- insert ------------------------------------------------------------------------------------
 */

/* Nodes for a split, taken before anything changes: spare[0] is a leaf, the others inner nodes. */
struct spares {
    uint32_t count, used;
    void *node[DEPTH_MAX + 2];
};

static int spares_get(struct kvs_index_map *m, const struct path *p, struct spares *s)
{
    uint32_t need = 1, depth = p->depth;

    while (depth > 0 && p->step[depth - 1].node->h.count == INNER_CAP) {
        need++;
        depth--;
    }
    need += depth == 0; /* the root splits: one more level */
    s->used = 0;
    if (p->depth + 1 == DEPTH_MAX) {
        s->count = 0;
        return KVS_ENOMEM; /* 70 * 30^15 entries: cannot happen */
    }
    for (s->count = 0; s->count < need; s->count++) {
        s->node[s->count] = node_new(m, s->count == 0);
        if (s->node[s->count] == NULL) {
            while (s->count > 0) {
                node_free(m, s->node[--s->count]);
            }
            return KVS_ENOMEM;
        }
    }
    return 0;
}

/* Where a full node of `count` is cut when something goes in at `at`: keys in order leave full
 * nodes. */
static uint32_t cut(uint32_t count, uint32_t at, int is_last, int is_first)
{
    if (is_last && at == count) {
        return count;
    }
    return is_first && at == 0 ? 0 : count / 2;
}

static void leaf_link(struct leaf *left, struct leaf *right)
{
    right->next = left->next;
    right->prev = left;
    if (right->next != NULL) {
        right->next->prev = right;
    }
    left->next = right;
}

static struct leaf *leaf_split(struct kvs_index_map *m, struct leaf *left, struct leaf *right,
                               uint32_t at, void *entry)
{
    uint32_t keep = cut(left->h.count, at, left->next == NULL, left->prev == NULL);
    uint32_t moved = left->h.count - keep;

    memcpy(right->heads, &left->heads[keep], moved * sizeof right->heads[0]);
    memcpy(right->entries, &left->entries[keep], moved * sizeof right->entries[0]);
    right->h.count = (uint16_t)moved;
    left->h.count = (uint16_t)keep;
    leaf_link(left, right);
    node_rehead(&m->conf, &right->h, right->heads, right->entries);
    node_rehead(&m->conf, &left->h, left->heads, left->entries);
    if (at < keep || keep == 0) {
        node_insert(&m->conf, &left->h, left->heads, left->entries, at, entry);
    } else {
        node_insert(&m->conf, &right->h, right->heads, right->entries, at - keep, entry);
    }
    return right;
}

static void inner_add(struct kvs_index_map *m, struct inner *n, uint32_t at, void *separator,
                      struct head *child)
{
    memmove(&n->children[at + 2], &n->children[at + 1],
            ((uint32_t)n->h.count - at) * sizeof n->children[0]);
    n->children[at + 1] = child;
    node_insert(&m->conf, &n->h, n->heads, n->separators, at, separator);
}

/* Cut a full inner node and add (separator, child) behind child `at`. The separator between the
 * halves moves up: *separator and *child become what the parent has to add. */
static void inner_split(struct kvs_index_map *m, struct inner *left, struct inner *right,
                        uint32_t at, void **separator, struct head **child)
{
    uint32_t keep = at == INNER_CAP ? INNER_CAP - 1 : INNER_CAP / 2, moved = INNER_CAP - keep - 1;
    void *up = left->separators[keep];

    memcpy(right->separators, &left->separators[keep + 1], moved * sizeof right->separators[0]);
    memcpy(right->children, &left->children[keep + 1], (moved + 1) * sizeof right->children[0]);
    right->h.count = (uint16_t)moved;
    left->h.count = (uint16_t)keep;
    node_rehead(&m->conf, &right->h, right->heads, right->separators);
    node_rehead(&m->conf, &left->h, left->heads, left->separators);
    if (at <= keep) {
        inner_add(m, left, at, *separator, *child);
    } else {
        inner_add(m, right, at - keep - 1, *separator, *child);
    }
    *separator = up;
    *child = &right->h;
}

static void insert_up(struct kvs_index_map *m, struct path *p, struct spares *s, void *separator,
                      struct head *child)
{
    struct inner *root;

    for (uint32_t depth = p->depth; depth > 0; depth--) {
        struct inner *n = p->step[depth - 1].node;

        if (n->h.count < INNER_CAP) {
            inner_add(m, n, p->step[depth - 1].at, separator, child);
            return;
        }
        inner_split(m, n, s->node[s->used++], p->step[depth - 1].at, &separator, &child);
    }
    root = s->node[s->used++];
    root->children[0] = m->root;
    inner_add(m, root, 0, separator, child);
    m->root = &root->h;
}

static int insert_first(struct kvs_index_map *m, void *entry)
{
    struct leaf *l = node_new(m, 1);

    if (l == NULL) {
        return KVS_ENOMEM;
    }
    l->prev = l->next = NULL;
    node_insert(&m->conf, &l->h, l->heads, l->entries, 0, entry);
    m->root = &l->h;
    m->count = 1;
    return 0;
}

static int btree_put(struct kvs_index_map *m, void *entry, void **ret_old)
{
    struct kvs_slice key = m->conf.key_of(m->conf.arg, entry);
    struct spares spares;
    struct path p;
    struct leaf *l;
    uint32_t at;
    int exact, rc;

    *ret_old = NULL;
    if (m->root == NULL) {
        return insert_first(m, entry);
    }
    l = descend(m, key, &p);
    at = node_search(&m->conf, &l->h, l->heads, l->entries, key, &exact);
    if (exact) {
        *ret_old = l->entries[at];
        l->entries[at] = entry;
        if (at == 0) {
            fix_first(m, &p, p.depth, entry);
        }
        return 0;
    }
    if (l->h.count < LEAF_CAP) {
        node_insert(&m->conf, &l->h, l->heads, l->entries, at, entry);
    } else {
        rc = spares_get(m, &p, &spares);
        if (rc != 0) {
            return rc;
        }
        struct leaf *right = leaf_split(m, l, spares.node[spares.used++], at, entry);

        insert_up(m, &p, &spares, right->entries[0], &right->h);
    }
    m->count++;
    return 0;
}

/* ---- delete ------------------------------------------------------------------------------------
 */

static void inner_drop(struct inner *n, uint32_t separator, uint32_t child)
{
    memmove(&n->children[child], &n->children[child + 1],
            ((uint32_t)n->h.count - child) * sizeof n->children[0]);
    node_remove(&n->h, n->heads, n->separators, separator);
}

static void leaf_unlink(struct leaf *l)
{
    if (l->prev != NULL) {
        l->prev->next = l->next;
    }
    if (l->next != NULL) {
        l->next->prev = l->prev;
    }
}

/* Child `at` of path step `depth - 1` is empty: take it out, and its parents as far as they are
 * empty then. */
static void remove_empty(struct kvs_index_map *m, struct path *p, struct head *empty)
{
    uint32_t depth = p->depth;

    if (empty->is_leaf) {
        leaf_unlink((struct leaf *)(void *)empty);
    }
    node_free(m, empty);
    while (depth > 0 && p->step[depth - 1].node->h.count == 0) {
        node_free(m, &p->step[--depth].node->h); /* it had this one child */
    }
    if (depth == 0) {
        m->root = NULL;
        return;
    }
    struct inner *n = p->step[depth - 1].node;
    uint32_t at = p->step[depth - 1].at;

    if (at == 0) {
        void *first = n->separators[0];

        inner_drop(n, 0, 0);
        fix_first(m, p, depth - 1, first);
    } else {
        inner_drop(n, at - 1, at);
    }
}

static void merge_leaves(struct kvs_index_map *m, struct inner *parent, uint32_t left_at)
{
    struct leaf *left = (struct leaf *)(void *)parent->children[left_at];
    struct leaf *right = (struct leaf *)(void *)parent->children[left_at + 1];

    memcpy(&left->entries[left->h.count], right->entries,
           right->h.count * sizeof right->entries[0]);
    left->h.count = (uint16_t)(left->h.count + right->h.count);
    node_rehead(&m->conf, &left->h, left->heads, left->entries);
    inner_drop(parent, left_at, left_at + 1);
    leaf_unlink(right);
    node_free(m, &right->h);
}

static void merge_inners(struct kvs_index_map *m, struct inner *parent, uint32_t left_at)
{
    struct inner *left = (struct inner *)(void *)parent->children[left_at];
    struct inner *right = (struct inner *)(void *)parent->children[left_at + 1];
    uint32_t n = left->h.count;

    left->separators[n] = parent->separators[left_at];
    memcpy(&left->separators[n + 1], right->separators,
           right->h.count * sizeof right->separators[0]);
    memcpy(&left->children[n + 1], right->children,
           (right->h.count + 1u) * sizeof right->children[0]);
    left->h.count = (uint16_t)(n + 1 + right->h.count);
    node_rehead(&m->conf, &left->h, left->heads, left->separators);
    inner_drop(parent, left_at, left_at + 1);
    node_free(m, &right->h);
}

/* Merge child `at` with a neighbour if both fit into one node. */
static void merge_at(struct kvs_index_map *m, struct inner *parent, uint32_t at)
{
    for (uint32_t side = 0; side < 2; side++) {
        uint32_t left = at - (side == 0 && at > 0), sum;

        if (left >= parent->h.count) {
            continue;
        }
        sum = (uint32_t)parent->children[left]->count + parent->children[left + 1]->count;
        if (parent->children[left]->is_leaf) {
            if (sum <= LEAF_CAP) {
                merge_leaves(m, parent, left);
                return;
            }
        } else if (sum + 1 <= INNER_CAP) {
            merge_inners(m, parent, left);
            return;
        }
    }
}

static void thin_out(struct kvs_index_map *m, struct path *p)
{
    uint32_t cap = LEAF_CAP;
    struct head *child = &p->leaf->h;

    for (uint32_t depth = p->depth; depth > 0 && child->count < SPARSE(cap); depth--) {
        merge_at(m, p->step[depth - 1].node, p->step[depth - 1].at);
        child = &p->step[depth - 1].node->h;
        cap = INNER_CAP;
    }
    while (m->root != NULL && !m->root->is_leaf && m->root->count == 0) {
        struct inner *old = (struct inner *)(void *)m->root;

        m->root = old->children[0];
        node_free(m, &old->h);
    }
}

static void *btree_del(struct kvs_index_map *m, struct kvs_slice key)
{
    struct path p;
    struct leaf *l;
    void *entry;
    uint32_t at;
    int exact;

    if (m->root == NULL) {
        return NULL;
    }
    l = descend(m, key, &p);
    at = node_search(&m->conf, &l->h, l->heads, l->entries, key, &exact);
    if (!exact) {
        return NULL;
    }
    entry = l->entries[at];
    node_remove(&l->h, l->heads, l->entries, at);
    m->count--;
    if (l->h.count == 0) {
        remove_empty(m, &p, &l->h);
        if (m->root != NULL) {
            p.leaf = NULL;
            while (!m->root->is_leaf && m->root->count == 0) {
                struct inner *old = (struct inner *)(void *)m->root;

                m->root = old->children[0];
                node_free(m, &old->h);
            }
        }
        return entry;
    }
    if (at == 0) {
        fix_first(m, &p, p.depth, l->entries[0]);
    }
    thin_out(m, &p);
    return entry;
}

/* ---- walking -----------------------------------------------------------------------------------
 */

static struct leaf *edge(const struct kvs_index_map *m, int last)
{
    struct head *h = m->root;

    while (h != NULL && !h->is_leaf) {
        struct inner *n = (struct inner *)(void *)h;

        h = n->children[last ? n->h.count : 0];
    }
    return (struct leaf *)(void *)h;
}

static int btree_each(const struct kvs_index_map *m, int (*fn)(void *arg, void *entry), void *arg)
{
    for (struct leaf *l = edge(m, 0); l != NULL; l = l->next) {
        for (uint32_t i = 0; i < l->h.count; i++) {
            int rc = fn(arg, l->entries[i]);

            if (rc != 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* opaque[0]: leaf, opaque[1]: position */
static void cursor_set(struct kvs_index_cursor *c, struct leaf *l, uint32_t at)
{
    c->opaque[0] = (uint64_t)(uintptr_t)l;
    c->opaque[1] = at;
    c->entry = l == NULL ? NULL : l->entries[at];
}

static struct leaf *cursor_leaf(const struct kvs_index_cursor *c)
{
    uintptr_t p = (uintptr_t)c->opaque[0];

    return (struct leaf *)p; /* NOLINT(performance-no-int-to-ptr) */
}

static void btree_next(struct kvs_index_cursor *c)
{
    struct leaf *l = cursor_leaf(c);
    uint32_t at = (uint32_t)c->opaque[1] + 1;

    if (c->entry == NULL) {
        return;
    }
    if (at == l->h.count) {
        l = l->next;
        at = 0;
    }
    cursor_set(c, l, at);
}

static void btree_prev(struct kvs_index_cursor *c)
{
    struct leaf *l = cursor_leaf(c);
    uint32_t at = (uint32_t)c->opaque[1];

    if (c->entry == NULL) {
        return;
    }
    if (at == 0) {
        l = l->prev;
        at = l == NULL ? 0 : l->h.count;
    }
    cursor_set(c, l, at - 1);
}

static void btree_seek(struct kvs_index_map *m, struct kvs_slice key, uint32_t mode,
                       struct kvs_index_cursor *ret_cursor)
{
    struct kvs_index_cursor *c = ret_cursor;
    int exact, backward = mode == KVS_INDEX_LE || mode == KVS_INDEX_LT;
    struct path p;
    struct leaf *l;
    uint32_t at;

    memset(c, 0, sizeof *c);
    c->map = m;
    if (m->root == NULL || (mode == KVS_INDEX_LE && key.len == 0)) {
        return;
    }
    if (key.len == 0) {
        l = edge(m, backward);
        cursor_set(c, l, backward ? l->h.count - 1u : 0);
        return;
    }
    l = descend(m, key, &p);
    at = node_search(&m->conf, &l->h, l->heads, l->entries, key, &exact);
    if (backward) {
        /* The last entry before position `at`, or at it when equal counts. */
        at += mode == KVS_INDEX_LE && exact;
        if (at == 0) {
            l = l->prev;
            at = l == NULL ? 0 : l->h.count;
        }
        cursor_set(c, l, at - 1);
        return;
    }
    at += mode == KVS_INDEX_GT && exact;
    if (at == l->h.count) {
        l = l->next;
        at = 0;
    }
    cursor_set(c, l, at);
}

/* ---- the plugin --------------------------------------------------------------------------------
 */

static int btree_init(const struct kvs_host *host, const void *conf, void **ret_self,
                      struct kvs_error *err)
{
    uintptr_t self =
        (uintptr_t)host; /* the instance is the host it runs in: never written through */

    (void)conf;
    (void)err;
    *ret_self = (void *)self; /* NOLINT(performance-no-int-to-ptr) */
    return 0;
}

static void btree_fini(void *self)
{
    (void)self;
}

static const struct kvs_index_ops ops = {
    .size = sizeof ops,
    .map_new = btree_map_new,
    .map_free = btree_map_free,
    .get = btree_get,
    .put = btree_put,
    .del = btree_del,
    .count = btree_count,
    .memory = btree_memory,
    .each = btree_each,
    .seek = btree_seek,
    .next = btree_next,
    .prev = btree_prev,
};

KVS_PLUGIN(.kind = KVS_KIND_INDEX, .caps = KVS_INDEX_CAP_ORDERED, .name = "btree",
           .version = "1.0.0", .summary = "ordered: a B+tree with key heads in its nodes",
           .ops = &ops, .init = btree_init, .fini = btree_fini);
