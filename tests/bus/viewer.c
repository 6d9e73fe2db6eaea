/* A consumer that is not ours: libnats, as the user view. Arguments: url, seed file, public key, host.
 *
 * Prints one line for each thing it saw or was refused; the test reads them. */
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void heard(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *closure)
{
    (void)connection, (void)subscription, (void)closure;
    printf("heard %s %.*s\n", natsMsg_GetSubject(message), natsMsg_GetDataLength(message), natsMsg_GetData(message));
    fflush(stdout);
    natsMsg_Destroy(message);
}

static void failed(natsConnection *connection, natsSubscription *subscription, natsStatus status, void *closure)
{
    const char *text = "";
    (void)subscription, (void)status, (void)closure;
    natsConnection_GetLastError(connection, &text);
    printf("refused %s\n", text);
    fflush(stdout);
}

static void must(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        fprintf(stderr, "%s: %s\n", what, natsStatus_GetText(status));
        exit(1);
    }
}

int main(int count, char **arguments)
{
    natsConnection *connection = NULL;
    natsOptions *options = NULL;
    natsSubscription *subscription = NULL;
    natsMsg *answer = NULL;
    char line[512], subject[256];

    if (count != 5)
        return 2;
    must(natsOptions_Create(&options), "options");
    must(natsOptions_SetURL(options, arguments[1]), "url");
    must(natsOptions_SetNKeyFromSeed(options, arguments[3], arguments[2]), "nkey");
    must(natsOptions_SetCustomInboxPrefix(options, "_INBOX.view"), "inbox");
    must(natsOptions_SetErrorHandler(options, failed, NULL), "handler");
    must(natsConnection_Connect(&connection, options), "connect");
    printf("connected\n");
    fflush(stdout);
    /* Orders, one a line: hear SUBJECT, say SUBJECT, ask SUBJECT. */
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "hear %255s", subject) == 1) {
            must(natsConnection_Subscribe(&subscription, connection, subject, heard, NULL), "subscribe");
            must(natsConnection_Flush(connection), "flush");
            printf("hears %s\n", subject);
        } else if (sscanf(line, "say %255s", subject) == 1) {
            must(natsConnection_PublishString(connection, subject, "x"), "publish");
            must(natsConnection_Flush(connection), "flush");
            printf("said %s\n", subject);
        } else if (sscanf(line, "ask %255s", subject) == 1) {
            natsStatus status = natsConnection_RequestString(&answer, connection, subject, "{}", 2000);
            if (status == NATS_OK) {
                printf("answer %s %.*s\n", subject, natsMsg_GetDataLength(answer), natsMsg_GetData(answer));
                natsMsg_Destroy(answer);
            } else
                printf("no answer %s %s\n", subject, natsStatus_GetText(status));
        }
        fflush(stdout);
    }
    natsConnection_Destroy(connection);
    natsOptions_Destroy(options);
    nats_Close();
    return 0;
}
