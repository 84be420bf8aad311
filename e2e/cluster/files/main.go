// Command files is the web server that stories read from: what is PUT is what GET answers, with an entity tag.
//
//	PUT    /sales.csv                  the body becomes the file
//	PUT    /sales.csv?status=503       GET answers this status, with the body as its text
//	PUT    /sales.csv?require=X-Key:a  GET without this header answers 401
//	PUT    /sales.csv?rate=65536       GET answers that many bytes a second
//	DELETE /sales.csv                  GET answers 404 again
//	PUT    /door?to=http://ollama:11434  what is asked below /door/ is asked there; the other words hold for it too
//
// It keeps files in memory and asks nobody who they are.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

type file struct {
	body    []byte
	tag     string
	written time.Time
	status  int
	header  string
	value   string
	rate    int
	to      *url.URL
}

func main() {
	var files sync.Map
	http.HandleFunc("PUT /{name...}", func(answer http.ResponseWriter, request *http.Request) {
		file, err := read(request)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		files.Store(request.URL.Path, file)
		answer.WriteHeader(http.StatusNoContent)
	})
	http.HandleFunc("DELETE /{name...}", func(answer http.ResponseWriter, request *http.Request) {
		files.Delete(request.URL.Path)
		answer.WriteHeader(http.StatusNoContent)
	})
	serve := func(answer http.ResponseWriter, request *http.Request) {
		found, ok := files.Load(request.URL.Path)
		if !ok {
			name, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
			found, ok = files.Load("/" + name)
			ok = ok && found.(file).to != nil
			request = below("/"+name, request)
		}
		if !ok {
			http.NotFound(answer, request)
			return
		}
		found.(file).serve(answer, request)
	}
	http.HandleFunc("GET /{name...}", serve)
	http.HandleFunc("POST /{name...}", serve)
	http.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	log.Fatal(http.ListenAndServe(":8000", nil))
}

func read(request *http.Request) (file, error) {
	query := request.URL.Query()
	body, err := io.ReadAll(request.Body)
	made := file{body: body, tag: fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(body))), written: time.Now()}
	made.header, made.value, _ = strings.Cut(query.Get("require"), ":")
	for name, number := range map[string]*int{"status": &made.status, "rate": &made.rate} {
		if text := query.Get(name); text != "" && err == nil {
			*number, err = strconv.Atoi(text)
		}
	}
	if to := query.Get("to"); to != "" && err == nil {
		made.to, err = url.Parse(to)
	}
	return made, err
}

// below is the request as it is seen from a folder.
func below(folder string, request *http.Request) *http.Request {
	seen := request.Clone(request.Context())
	seen.URL.Path, seen.URL.RawPath = strings.TrimPrefix(request.URL.Path, folder), ""
	return seen
}

func (file file) serve(answer http.ResponseWriter, request *http.Request) {
	switch {
	case file.header != "" && request.Header.Get(file.header) != file.value:
		http.Error(answer, "this file asks for the header "+file.header, http.StatusUnauthorized)
	case file.status != 0:
		http.Error(answer, string(file.body), file.status)
	case file.to != nil:
		door := httputil.ReverseProxy{
			Rewrite:       func(passing *httputil.ProxyRequest) { passing.SetURL(file.to) },
			FlushInterval: -1,
		}
		if file.rate > 0 {
			answer = slow{answer, file.rate}
		}
		door.ServeHTTP(answer, request)
	default:
		answer.Header().Set("ETag", file.tag)
		if file.rate > 0 {
			answer = slow{answer, file.rate}
		}
		http.ServeContent(answer, request, request.URL.Path, file.written, bytes.NewReader(file.body))
	}
}

// slow writes ten times a second what its rate allows.
type slow struct {
	http.ResponseWriter
	rate int
}

func (writer slow) Write(bytes []byte) (int, error) {
	written := 0
	for written < len(bytes) {
		end := min(len(bytes), written+max(1, writer.rate/10))
		count, err := writer.ResponseWriter.Write(bytes[written:end])
		written += count
		if err != nil {
			return written, err
		}
		if err := http.NewResponseController(writer.ResponseWriter).Flush(); err != nil {
			return written, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return written, nil
}
