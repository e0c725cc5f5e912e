/* SPDX-License-Identifier: MIT
 *
 * The dynamic symbols of a shared object, read from the file: the loader would only tell whether a
 * name we know is there. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

#define FILE_SIZE_MAX (512 << 20)

struct elf {
    uint8_t *bytes;
    size_t size;
};

static int elf_read(const char *path, struct elf *ret)
{
    FILE *f = fopen(path, "rb");
    long size;

    memset(ret, 0, sizeof *ret);
    if (f == NULL) {
        return KVS_EINVAL;
    }
    size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (size >= (long)sizeof(Elf64_Ehdr) && size <= FILE_SIZE_MAX && fseek(f, 0, SEEK_SET) == 0) {
        ret->size = (size_t)size;
        ret->bytes = check_alloc(ret->size);
        if (fread(ret->bytes, 1, ret->size, f) != ret->size) {
            ret->size = 0;
        }
    }
    (void)fclose(f);
    return ret->size > 0 && memcmp(ret->bytes, ELFMAG, SELFMAG) == 0 &&
                   ret->bytes[EI_CLASS] == ELFCLASS64
               ? 0
               : KVS_EINVAL;
}

static int in_file(const struct elf *e, uint64_t offset, uint64_t size)
{
    return offset <= e->size && size <= e->size - offset;
}

/* Section i, checked to lie in the file. */
static int section(const struct elf *e, const Elf64_Ehdr *h, uint32_t i, Elf64_Shdr *ret)
{
    uint64_t at = h->e_shoff + (uint64_t)i * sizeof *ret;

    if (i >= h->e_shnum || !in_file(e, at, sizeof *ret)) {
        return KVS_EINVAL;
    }
    memcpy(ret, e->bytes + at, sizeof *ret);
    return ret->sh_type == SHT_NOBITS || in_file(e, ret->sh_offset, ret->sh_size) ? 0 : KVS_EINVAL;
}

static int is_exported(const Elf64_Sym *s)
{
    uint32_t bind = ELF64_ST_BIND(s->st_info), seen = ELF64_ST_VISIBILITY(s->st_other);

    return s->st_shndx != SHN_UNDEF && bind != STB_LOCAL &&
           (seen == STV_DEFAULT || seen == STV_PROTECTED);
}

static void visit(const struct elf *e, const Elf64_Shdr *symbols, const Elf64_Shdr *strings,
                  void (*fn)(void *arg, const char *name), void *arg)
{
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= symbols->sh_size; at += sizeof(Elf64_Sym)) {
        const char *text = (const char *)e->bytes + strings->sh_offset;
        Elf64_Sym s;

        memcpy(&s, e->bytes + symbols->sh_offset + at, sizeof s);
        if (!is_exported(&s) || s.st_name >= strings->sh_size ||
            memchr(text + s.st_name, '\0', strings->sh_size - s.st_name) == NULL) {
            continue;
        }
        /* Names with '_' belong to compiler, linker and sanitizers. */
        if (text[s.st_name] != '\0' && text[s.st_name] != '_') {
            fn(arg, text + s.st_name);
        }
    }
}

int check_symbols(const char *path, void (*fn)(void *arg, const char *name), void *arg)
{
    Elf64_Shdr symbols = {0}, strings = {0};
    Elf64_Ehdr h = {0};
    struct elf e;
    int rc = elf_read(path, &e), found = 0;

    if (rc == 0) {
        memcpy(&h, e.bytes, sizeof h);
    }
    for (uint32_t i = 0; rc == 0 && i < h.e_shnum && !found; i++) {
        rc = section(&e, &h, i, &symbols);
        found = rc == 0 && symbols.sh_type == SHT_DYNSYM;
    }
    rc = rc == 0 && found ? section(&e, &h, symbols.sh_link, &strings) : KVS_EINVAL;
    if (rc == 0) {
        visit(&e, &symbols, &strings, fn, arg);
    }
    free(e.bytes);
    return rc;
}
