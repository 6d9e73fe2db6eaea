/* What xenstored asks of the hypervisor, answered without one; made by
 * xenstored-local and put in front of either daemon by LD_PRELOAD.
 *
 * libxenctrl: every domain lives until an event says otherwise.  libxengnttab:
 * a domain's ring is the file ring-DOMID.  libxenevtchn: the pipe "event" is
 * what the daemon polls.  libc: Xen's files and root's folders are moved into
 * $XENSTORED_LOCAL_DIR.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xenctrl.h>

enum { VIRQ_PORT = 1, FIRST_PORT = 16, DOMIDS = 0x7ff0 };
static char handle;                     /* any address will do as a handle */
static unsigned char state[DOMIDS];     /* 0 alive, 1 shut down, 2 gone */
static uint16_t owner[65536];           /* port -> domid */
static int next_port = FIRST_PORT, event_fd = -1;

static const char *in_dir(const char *name)
{
    static __thread char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("XENSTORED_LOCAL_DIR"), name);
    return path;
}

static void *page(uint32_t domid)
{
    char name[32];
    void *p;
    int fd;
    snprintf(name, sizeof name, "ring-%u", domid);
    fd = open(in_dir(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096))
        return NULL;
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

/* ---- libxenctrl */
xc_interface *xc_interface_open(xentoollog_logger *a, xentoollog_logger *b, unsigned f) { return (void *)&handle; }
int xc_interface_close(xc_interface *x) { return 0; }

int xc_domain_getinfo(xc_interface *x, uint32_t first, unsigned max, xc_dominfo_t *info)
{
    unsigned n = 0;
    for (; first < DOMIDS && n < max; first++)
        if (state[first] != 2) {
            memset(&info[n], 0, sizeof *info);
            info[n].domid = first;
            info[n].shutdown = state[first] == 1;
            n++;
        }
    return n;
}

int xc_domain_getinfolist(xc_interface *x, uint32_t first, unsigned max, xc_domaininfo_t *info)
{
    unsigned n = 0;
    for (; first < DOMIDS && n < max; first++)
        if (state[first] != 2) {
            memset(&info[n], 0, sizeof *info);
            info[n].domain = first;
            info[n].flags = state[first] == 1 ? XEN_DOMINF_shutdown : XEN_DOMINF_running;
            n++;
        }
    return n;
}

void *xc_map_foreign_range(xc_interface *x, uint32_t domid, int size, int prot, unsigned long mfn) { return page(domid); }

/* ---- libxengnttab */
void *xengnttab_open(void *l, unsigned f) { return &handle; }
int xengnttab_close(void *x) { return 0; }
int xengnttab_set_max_grants(void *x, uint32_t n) { return 0; }
void *xengnttab_map_grant_ref(void *x, uint32_t domid, uint32_t ref, int prot) { return page(domid); }
int xengnttab_unmap(void *x, void *p, uint32_t n) { return munmap(p, (size_t)n * 4096); }

/* ---- libxenevtchn: the pipe is what the daemon polls */
void *xenevtchn_open(void *l, unsigned f)
{
    if (event_fd < 0)
        event_fd = open(in_dir("event"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return event_fd < 0 ? NULL : &handle;
}
void *xenevtchn_fdopen(void *l, int fd, unsigned f) { event_fd = fd; return &handle; }
int xenevtchn_close(void *x) { return 0; }
int xenevtchn_fd(void *x) { return event_fd; }
int xenevtchn_bind_virq(void *x, unsigned virq) { return VIRQ_PORT; }
int xenevtchn_bind_interdomain(void *x, uint32_t domid, uint32_t port)
{
    owner[next_port & 0xffff] = domid;
    return next_port++ & 0xffff;
}
int xenevtchn_unbind(void *x, uint32_t port) { return 0; }
int xenevtchn_unmask(void *x, uint32_t port) { return 0; }
int xenevtchn_notify(void *x, uint32_t port) { return 0; }
int xenevtchn_pending(void *x)
{
    char line[64], what[16];
    unsigned domid, n = 0;
    int port;
    while (n < sizeof line - 1 && read(event_fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    if (sscanf(line, "%15s %u", what, &domid) != 2 || !domid || domid >= DOMIDS)
        return VIRQ_PORT;
    if (!strcmp(what, "shutdown")) state[domid] = 1;
    else if (!strcmp(what, "destroy")) state[domid] = 2;
    else if (!strcmp(what, "create")) state[domid] = 0;
    else if (!strcmp(what, "kick"))
        for (port = FIRST_PORT; port < next_port; port++)
            if (owner[port] == domid)
                return port;
    return VIRQ_PORT;
}

/* ---- libc: files of Xen's, folders that only root may write to */
static const char *moved(const char *path)
{
    static const char *const from[] = { "/var/run/xenstored", "/run/xenstored", "/var/run/xen", "/var/log/xen", 0 };
    int i;
    if (!path)
        return path;
    if (!strcmp(path, "/proc/xen/xsd_kva") || !strcmp(path, "/dev/xen/xsd_kva"))
        return in_dir("ring-0");
    if (!strcmp(path, "/proc/xen/xsd_port"))
        return in_dir("xsd_port");
    for (i = 0; from[i]; i++) {
        size_t n = strlen(from[i]);
        if (!strncmp(path, from[i], n) && (path[n] == '/' || !path[n]))
            return path[n] ? in_dir(path + n + 1) : getenv("XENSTORED_LOCAL_DIR");
    }
    return path;
}
#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
    va_list ap; mode_t mode; \
    va_start(ap, flags); mode = va_arg(ap, mode_t); va_end(ap); \
    return REAL(name)(moved(path), flags, mode); \
}
OPEN(open)
OPEN(open64)
int unlink(const char *path) { return REAL(unlink)(moved(path)); }
int chmod(const char *path, mode_t m) { return REAL(chmod)(moved(path), m); }
int mkdir(const char *path, mode_t m) { return REAL(mkdir)(moved(path), m); }
int access(const char *path, int m) { return REAL(access)(moved(path), m); }
int bind(int fd, const struct sockaddr *a, socklen_t len)
{
    struct sockaddr_un u;
    if (a->sa_family != AF_UNIX)
        return REAL(bind)(fd, a, len);
    memset(&u, 0, sizeof u);
    u.sun_family = AF_UNIX;
    snprintf(u.sun_path, sizeof u.sun_path, "%s", moved(((const struct sockaddr_un *)a)->sun_path));
    return REAL(bind)(fd, (struct sockaddr *)&u, sizeof u);
}
/* oxenstored insists on raising the number of open files; no need to. */
int setrlimit(__rlimit_resource_t r, const struct rlimit *l) { return 0; }
